"""`streamgen webcam`: a page that restyles the visitor's camera while it runs."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError, install_command
from streamgen.serving.interrupts import Interrupts
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import PresetFacts
from streamgen.serving.warming import warmed_host
from streamgen_apps.commands import tell_on_stderr
from streamgen_apps.gpu_options import check_gpu_options, host_maker
from streamgen_apps.listening import certificate_of, listen, reachable_name
from streamgen_apps.logs import begin_logging

PRESETS = ("tiny-cpu-v2v", "tiny-cpu")
GOODBYE_S = 2  # that open pages have when the server ends


def webcam(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    begin_logging()
    _check_packages()
    from streamgen.serving.gateway.access import is_loopback, new_token

    token: str | None = options.token
    if token is not None and not token.strip():
        raise ConfigError("--token is empty; give a secret, or leave it out to have one made")
    if token is None and not is_loopback(options.host):
        token = new_token()
    if options.max_sessions is not None and options.max_sessions < 1:
        raise ConfigError(f"--max-sessions {options.max_sessions} lets nobody in; give at least 1")
    check_gpu_options(options)
    clock = MonotonicClock()
    names: list[str] = options.preset or list(PRESETS)
    make = {
        name: partial(warmed_host, host_maker(name, options, clock), tell_on_stderr)
        for name in names
    }
    listener = listen(options.host, options.port)
    with contextlib.closing(listener), Interrupts(), contextlib.ExitStack() as stack:
        certificate = certificate_of(options, stack)
        host = LiveHost(make, clock=clock)
        stack.callback(host.stop)
        print(f"streamgen: loading {', '.join(names)}", file=sys.stderr)
        presets = host.start()
        with contextlib.suppress(KeyboardInterrupt):
            _serve(host, presets, options, listener, token, certificate, clock)
    return 0


def _serve(
    host: LiveHost,
    presets: tuple[PresetFacts, ...],
    options: argparse.Namespace,
    listener: socket.socket,
    token: str | None,
    certificate: tuple[Path, Path] | None,
    clock: MonotonicClock,
) -> None:
    import uvicorn

    from streamgen.serving.gateway.access import AccessControl
    from streamgen.serving.gateway.server import MAX_MESSAGE_BYTES, Gateway, make_app
    from streamgen_apps.webcam_page import add_page

    num_places = options.max_sessions
    if num_places is None:
        num_places = min(facts.sessions for facts in presets)
    for facts in presets:
        if num_places > facts.sessions:
            raise ConfigError(
                f"--max-sessions {num_places} is more than the {facts.sessions} that preset "
                f"{facts.name} has memory for; add --set engine.sessions={num_places}"
            )
    gateway = Gateway(
        host, {facts.name: facts for facts in presets}, num_places=num_places, clock=clock
    )
    app = add_page(make_app(gateway), presets)
    config = uvicorn.Config(
        AccessControl(app, token=token, is_https=certificate is not None),
        log_level="warning",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=5,
        ws_ping_timeout=5,
        timeout_graceful_shutdown=GOODBYE_S,
        ssl_certfile=None if certificate is None else str(certificate[0]),
        ssl_keyfile=None if certificate is None else str(certificate[1]),
    )
    _tell_addresses(options, listener, token, is_https=certificate is not None)
    uvicorn.Server(config).run(sockets=[listener])


def _check_packages() -> None:
    needed = ("gradio", "fastapi", "uvicorn", "websockets")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the page needs {', '.join(missing)}; install it: {install_command('webcam')}"
        )


def _tell_addresses(
    options: argparse.Namespace, listener: socket.socket, token: str | None, *, is_https: bool
) -> None:
    from streamgen.serving.gateway.access import is_loopback

    scheme = "https" if is_https else "http"
    port = listener.getsockname()[1]
    query = "" if token is None else f"/?token={token}"
    shown = reachable_name(options.host)
    shown = f"[{shown}]" if ":" in shown else shown
    print(f"streamgen: open {scheme}://{shown}:{port}{query}", flush=True)
    if not is_https and not is_loopback(options.host):
        print(
            "streamgen: over plain http other devices get no camera; add --https", file=sys.stderr
        )
    if is_https and not options.certificate:
        print(
            "streamgen: the certificate is self-made, so browsers warn once; go on to the page",
            file=sys.stderr,
        )
