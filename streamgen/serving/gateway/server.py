"""The web application: live streams over WebSocket and WebRTC, and what watches over a process.

    GET  /livez              200 while the process answers
    GET  /readyz             200 when models are loaded, else 503
    GET  /metrics            Prometheus' text format
    GET  /streamgen/socket   WebSocket: see messages.py
    POST /streamgen/rtc      {"sdp", "type": "offer"} -> {"sdp", "type": "answer"}

It opens no address and no path that a page names. Pages are mounted beside these by their app.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import PlainTextResponse

from streamgen.clock import Clock
from streamgen.errors import ConfigError
from streamgen.serving.gateway.places import Places
from streamgen.serving.gateway.socket_peer import SocketPeer
from streamgen.serving.gateway.visit import Peer, Visit
from streamgen.serving.live import LiveHost, PresetFacts

if TYPE_CHECKING:
    from streamgen.serving.gateway.rtc_peer import RtcPeer

SOCKET_PATH = "/streamgen/socket"
RTC_PATH = "/streamgen/rtc"
MAX_MESSAGE_BYTES = 4_000_000  # of a WebSocket: a JPEG of a 4K camera
MAX_OFFER_BYTES = 100_000
MAX_WAITING = 32  # visitors in line
MAX_CONNECTIONS = 128  # pages that are open at once, streaming or not


def has_webrtc() -> bool:
    """Whether the package that WebRTC needs is installed."""
    return find_spec("aiortc") is not None


class Gateway:
    """Visits of one live host; one object a server."""

    def __init__(
        self,
        host: LiveHost,
        presets: Mapping[str, PresetFacts],
        *,
        num_places: int,
        clock: Clock,
    ) -> None:
        self.host = host
        self.presets = dict(presets)
        self.places = Places(num_places, max_waiting=MAX_WAITING)
        self._clock = clock
        self._num_open = 0
        self._rtc_visits: set[asyncio.Task[None]] = set()

    async def visit_by_socket(self, socket: WebSocket) -> None:
        await socket.accept()
        if self._num_open >= MAX_CONNECTIONS:
            await socket.close(code=1013, reason="too many pages are open; come back later")
            return
        await self._visit(SocketPeer(socket))

    async def visit_by_rtc(self, request: Request) -> dict[str, str]:
        """Answer an offer; the visit goes on beside the request."""
        if not has_webrtc():
            raise HTTPException(501, "WebRTC needs aiortc: pip install 'streamgen[webcam]'")
        if self._num_open >= MAX_CONNECTIONS:
            raise HTTPException(503, "too many pages are open; come back later")
        from streamgen.serving.gateway.rtc_peer import RtcPeer, SessionOffer

        peer = RtcPeer(self._clock)
        try:
            offer = SessionOffer.model_validate_json(await _small_body(request))
            answer = await peer.answer(offer)
        except (ValueError, ConfigError) as error:
            raise HTTPException(400, "not an offer of a WebRTC session") from error
        visit = asyncio.create_task(self._visit_rtc(peer))
        self._rtc_visits.add(visit)
        visit.add_done_callback(self._rtc_visits.discard)
        return answer

    async def close(self) -> None:
        """End the visits that no connection of the web server holds."""
        for visit in list(self._rtc_visits):
            visit.cancel()
        await asyncio.gather(*self._rtc_visits, return_exceptions=True)

    async def _visit_rtc(self, peer: RtcPeer) -> None:
        try:
            if await peer.connected():
                await self._visit(peer)
        finally:
            await peer.close()

    async def _visit(self, peer: Peer) -> None:
        self._num_open += 1
        try:
            await Visit(peer, self.host, self.places, presets=self.presets, clock=self._clock).run()
        finally:
            self._num_open -= 1


def make_app(gateway: Gateway) -> FastAPI:
    """The application of a gateway; who runs it stops the live host afterwards."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await gateway.close()

    app = FastAPI(title="StreamGen", docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.get("/livez", response_class=PlainTextResponse)
    async def livez() -> str:
        return "alive\n"

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> Response:
        if gateway.host.is_running:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("the engine does not run\n", 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        places = gateway.places
        return (
            f"{gateway.host.metrics_text()}"
            "# HELP streamgen_places_taken Places that visitors have.\n"
            "# TYPE streamgen_places_taken gauge\n"
            f"streamgen_places_taken {places.num_inside}\n"
            "# HELP streamgen_visitors_waiting Visitors who wait for a place.\n"
            "# TYPE streamgen_visitors_waiting gauge\n"
            f"streamgen_visitors_waiting {places.num_waiting}\n"
        )

    @app.post(RTC_PATH)
    async def rtc(request: Request) -> dict[str, str]:
        return await gateway.visit_by_rtc(request)

    app.add_api_websocket_route(SOCKET_PATH, gateway.visit_by_socket)
    return app


async def _small_body(request: Request) -> bytes:
    """The body of a request, read no further than a description can be long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_OFFER_BYTES:
            raise HTTPException(413, "an offer is shorter than that")
    return body
