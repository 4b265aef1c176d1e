"""The web application of live streams on a free port, in threads of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import FastAPI

from streamgen import Host
from streamgen.clock import MonotonicClock
from streamgen.serving.gateway.access import AccessControl
from streamgen.serving.gateway.server import MAX_MESSAGE_BYTES, Gateway, make_app
from streamgen.serving.live import LiveHost, PresetFacts

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A server that runs; `address` is host:port."""

    address: str
    gateway: Gateway

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
    server = uvicorn.Server(
        uvicorn.Config(
            AccessControl(app, token=token, is_https=False),
            log_level="warning",
            ws_max_size=MAX_MESSAGE_BYTES,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield LiveServer(f"127.0.0.1:{listener.getsockname()[1]}", gateway)
    finally:
        server.should_exit = True
        thread.join(START_TIMEOUT_S)
        listener.close()
        host.stop()
