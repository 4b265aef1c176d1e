"""`streamgen serve`: live streams for programs, by one engine or by several behind one address."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from streamgen.clock import Clock, MonotonicClock
from streamgen.errors import ConfigError, StreamGenError, install_command
from streamgen_apps.commands import tell_on_stderr
from streamgen_apps.gpu_options import check_gpu_options, gpu_words, host_maker
from streamgen_apps.listening import certificate_of, listen, reachable_name
from streamgen_apps.logs import begin_logging

if TYPE_CHECKING:
    from streamgen.serving.fleet.router import Router
    from streamgen.serving.gateway.server import Gateway

PRESETS = ("tiny-cpu", "tiny-cpu-v2v")
GOODBYE_S = 2  # that connections have when the server ends


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code."""
    begin_logging()
    _check(options)
    from streamgen.serving.gateway.access import is_loopback, new_token

    token = _token(options)
    if token is None and not is_loopback(options.host):
        token = new_token()
    clock = MonotonicClock()
    listener = listen(options.host, options.port)
    with contextlib.closing(listener), contextlib.ExitStack() as stack:
        server = Server(options, listener, token, certificate_of(options, stack), clock)
        with contextlib.suppress(KeyboardInterrupt):
            if options.ray or options.replicas:
                _serve_fleet(server)
            else:
                _serve_engine(server)
    return 0


class Server:
    """A listening port and who may come; runs a service behind it."""

    def __init__(
        self,
        options: argparse.Namespace,
        listener: socket.socket,
        token: str | None,
        certificate: tuple[Path, Path] | None,
        clock: Clock,
    ) -> None:
        self.options = options
        self.clock = clock
        self._listener = listener
        self._token = token
        self._certificate = certificate

    @property
    def presets(self) -> list[str]:
        return self.options.preset or list(PRESETS)

    @property
    def address(self) -> str:
        scheme = "http" if self._certificate is None else "https"
        name = reachable_name(self.options.host)
        name = f"[{name}]" if ":" in name else name
        return f"{scheme}://{name}:{self._listener.getsockname()[1]}"

    def run(self, service: Gateway | Router, when_up: partial[None]) -> None:
        """Answer until told to end; visitors may stay for --drain-seconds then."""
        import uvicorn

        from streamgen.serving.gateway.access import AccessControl
        from streamgen.serving.gateway.running import DrainingServer
        from streamgen.serving.gateway.server import MAX_MESSAGE_BYTES, make_app

        config = uvicorn.Config(
            AccessControl(
                make_app(service), token=self._token, is_https=self._certificate is not None
            ),
            log_level="warning",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_ping_interval=5,
            ws_ping_timeout=5,
            timeout_graceful_shutdown=GOODBYE_S,
            ssl_certfile=None if self._certificate is None else str(self._certificate[0]),
            ssl_keyfile=None if self._certificate is None else str(self._certificate[1]),
        )
        server = DrainingServer(
            config, service, drain_s=self.options.drain_seconds, clock=self.clock, when_up=when_up
        )
        if not self.options.replica:
            query = "" if self._token is None else f" token {self._token}"
            print(f"streamgen: serving {self.address}{query}", flush=True)
        server.run(sockets=[self._listener])


def _serve_engine(server: Server) -> None:
    from streamgen.serving.fleet.processes import ADDRESS_MARK
    from streamgen.serving.gateway.server import Gateway
    from streamgen.serving.live import LiveHost
    from streamgen.serving.warming import warmed_host

    options, clock = server.options, server.clock
    make = {
        name: partial(warmed_host, host_maker(name, options, clock), tell_on_stderr)
        for name in server.presets
    }
    host = LiveHost(make, clock=clock)
    gateway = Gateway(host, {}, num_places=1, clock=clock)
    failures: list[StreamGenError] = []
    if options.replica:
        print(f"{ADDRESS_MARK}{server.address}", flush=True)
    else:
        print(f"streamgen: loading {', '.join(server.presets)}", file=sys.stderr)
    try:
        server.run(gateway, partial(_load_beside, host, gateway, options, clock, failures))
    finally:
        host.stop()
    if failures:
        raise failures[0]
    if host.has_failed:
        raise StreamGenError("the engine failed; the log says why")


def _load_beside(
    host: object,
    gateway: Gateway,
    options: argparse.Namespace,
    clock: Clock,
    failures: list[StreamGenError],
) -> None:
    """Load and warm up in a thread, so that requests are answered meanwhile; in the event loop."""
    import asyncio

    from streamgen.serving.live import LiveHost
    from streamgen.serving.warming import warm

    assert isinstance(host, LiveHost)
    loop = asyncio.get_running_loop()

    def load() -> None:
        try:
            presets = host.start()
            places = _num_places(options, min(facts.sessions for facts in presets))
            warm(host, presets, clock)
        except Exception as error:  # the thread's root: the server ends, and says why
            if not isinstance(error, StreamGenError):
                logging.getLogger(__name__).error("loading failed", exc_info=error)
                error = StreamGenError("models could not be loaded; the log says why")
            failures.append(error)
            loop.call_soon_threadsafe(gateway.fail)
            return
        loop.call_soon_threadsafe(gateway.open, presets, places)
        if not options.replica:
            print(f"streamgen: ready for {places} sessions", file=sys.stderr)

    threading.Thread(target=load, name="loading", daemon=True).start()


def _num_places(options: argparse.Namespace, sessions: int) -> int:
    if options.max_sessions is None:
        return sessions
    if options.max_sessions > sessions:
        raise ConfigError(
            f"--max-sessions {options.max_sessions} is more than the {sessions} that a preset has "
            f"memory for; add --set engine.sessions={options.max_sessions}"
        )
    return options.max_sessions


def _serve_fleet(server: Server) -> None:
    from streamgen.serving.fleet.processes import ProcessReplicas
    from streamgen.serving.fleet.router import Router
    from streamgen.serving.gateway.access import new_token

    options, inner = server.options, new_token()
    command = _replica_command(server)
    if options.ray:
        from streamgen.serving.fleet.ray_replicas import RayReplicas
        from streamgen.serving.fleet.scaling import Scaling

        least = options.replicas or 1
        scaling = Scaling(least=least, most=max(least, options.max_replicas or least))
        replicas = RayReplicas(
            command, scaling, token=inner, address=options.ray_address,
            gpus=options.gpus if options.ray_gpus else 0, drain_s=options.drain_seconds,
        )  # fmt: skip
    else:
        replicas = ProcessReplicas(command, options.replicas, token=inner, clock=server.clock)
    router = Router(replicas, token=inner, clock=server.clock)
    try:
        server.run(router, partial(router.begin))
    finally:
        replicas.close()


def _replica_command(server: Server) -> list[str]:
    options = server.options
    command = [sys.executable, "-m", "streamgen_apps.cli", "serve", "--replica", "--port", "0"]
    command += ["--drain-seconds", str(options.drain_seconds), *gpu_words(options)]
    for name in server.presets:
        command += ["--preset", name]
    for setting in options.overrides:
        command += ["--set", setting]
    if options.max_sessions is not None:
        command += ["--max-sessions", str(options.max_sessions)]
    return command


def _token(options: argparse.Namespace) -> str | None:
    if options.replica:
        token = sys.stdin.readline().strip()
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
        return token
    token: str | None = options.token
    if options.token_file is not None:
        if token is not None:
            raise ConfigError("--token and --token-file say the same; give one")
        try:
            token = Path(options.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {options.token_file}: {error}") from error
    if token is not None and not token.strip():
        raise ConfigError("the token is empty; give a secret, or leave it out to have one made")
    return token


def _end_with_parent() -> None:
    """Who started this replica holds its standard input open for as long as it lives."""
    while sys.stdin.readline():
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _check(options: argparse.Namespace) -> None:
    needed = ("fastapi", "uvicorn", "websockets", "pydantic", "PIL")
    missing = [name for name in needed if find_spec(name) is None]
    if options.ray and find_spec("ray") is None:
        missing.append("ray")
    if missing:
        extra = "ray" if missing == ["ray"] else "serve"
        raise ConfigError(
            f"serving needs {', '.join(missing)}; install it: {install_command(extra)}"
        )
    if options.replicas is not None and options.replicas < 1:
        raise ConfigError(f"--replicas {options.replicas} draw nothing; give at least 1")
    if options.max_sessions is not None and options.max_sessions < 1:
        raise ConfigError(f"--max-sessions {options.max_sessions} lets nobody in; give at least 1")
    check_gpu_options(options)
    if options.drain_seconds < 0:
        raise ConfigError(f"--drain-seconds {options.drain_seconds} is in the past; give 0 or more")
    if not options.ray:
        for name in ("max_replicas", "ray_address", "ray_gpus"):
            if getattr(options, name) not in (None, False):
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} has no effect without --ray; add it or leave this out")
