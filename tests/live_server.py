"""The web application of live streams on a free port, in threads of this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import FastAPI

from streamgen import Host
from streamgen.clock import MonotonicClock
from streamgen.serving.fleet.router import Router
from streamgen.serving.gateway.access import AccessControl
from streamgen.serving.gateway.bodies import Load
from streamgen.serving.gateway.running import DrainingServer
from streamgen.serving.gateway.server import MAX_MESSAGE_BYTES, Gateway, make_app
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import PresetFacts

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A server that runs; `address` is host:port."""

    address: str
    gateway: Gateway
    drain: Callable[[], None]
    """Begin to drain; it ends when it is empty."""
    end: Callable[[], None]
    """End at once, with all connections."""

    @property
    def url(self) -> str:
        return f"http://{self.address}"


def _no_page(app: FastAPI, presets: tuple[PresetFacts, ...]) -> FastAPI:
    return app


@contextmanager
def live_server(
    overrides: Mapping[str, tuple[str, ...]],
    *,
    num_places: int = 4,
    token: str | None = None,
    add_page: Callable[[FastAPI, tuple[PresetFacts, ...]], FastAPI] = _no_page,
) -> Generator[LiveServer]:
    """Serve the presets that `overrides` names, with those settings on top."""
    clock = MonotonicClock()
    make = {
        name: partial(Host, name, overrides=settings, clock=clock)
        for name, settings in overrides.items()
    }
    host = LiveHost(make, clock=clock)
    presets = host.start()
    gateway = Gateway(
        host, {facts.name: facts for facts in presets}, num_places=num_places, clock=clock
    )
    app = add_page(make_app(gateway), presets)
    listener = socket.create_server(("127.0.0.1", 0))
    loops: list[asyncio.AbstractEventLoop] = []
    server = DrainingServer(
        uvicorn.Config(
            AccessControl(app, token=token, is_https=False),
            log_level="warning",
            ws_max_size=MAX_MESSAGE_BYTES,
            timeout_graceful_shutdown=1,
        ),
        gateway,
        drain_s=START_TIMEOUT_S,
        clock=clock,
        when_up=lambda: loops.append(asyncio.get_running_loop()),
    )

    def end() -> None:
        server.should_exit = server.force_exit = True
        thread.join(START_TIMEOUT_S)

    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield LiveServer(
            f"127.0.0.1:{listener.getsockname()[1]}",
            gateway,
            drain=lambda: loops[0].call_soon_threadsafe(server.drain) and None,
            end=end,
        )
    finally:
        server.should_exit = True
        thread.join(START_TIMEOUT_S)
        listener.close()
        host.stop()


class KnownReplicas:
    """Replicas that a test has started."""

    def __init__(self, servers: Mapping[str, LiveServer]) -> None:
        self.servers = dict(servers)
        self.reports: list[tuple[list[Load], int]] = []

    async def addresses(self) -> Mapping[str, str]:
        return {name: server.url for name, server in self.servers.items()}

    async def report(self, loads: Sequence[Load], waiting: int) -> None:
        self.reports.append((list(loads), waiting))


@contextmanager
def live_router(replicas: KnownReplicas, *, token: str) -> Generator[tuple[Router, str]]:
    """A router before servers that want `token`, and its address."""
    clock = MonotonicClock()
    router = Router(replicas, token=token, clock=clock)
    listener = socket.create_server(("127.0.0.1", 0))
    server = DrainingServer(
        uvicorn.Config(
            AccessControl(make_app(router), token=None, is_https=False),
            log_level="warning",
            timeout_graceful_shutdown=1,
        ),
        router,
        drain_s=START_TIMEOUT_S,
        clock=clock,
        when_up=router.begin,
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield router, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_TIMEOUT_S)
        listener.close()
