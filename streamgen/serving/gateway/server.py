"""The web application of one engine: live streams over two ways, and the routes of api.py.

    GET  /metrics.json       the metrics of each preset's engine for programs
    GET  /trace?seconds=10   what the engine of ?preset= did lately, for chrome://tracing
    GET  /streamgen/socket   WebSocket: see messages.py
    POST /streamgen/rtc      {"sdp", "type": "offer"} -> {"sdp", "type": "answer"}

It opens no address and no path that a visitor names. Pages are mounted beside these by their app.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse

from streamgen.clock import Clock
from streamgen.errors import ConfigError, install_command
from streamgen.serving.gateway.api import Service, add_routes, no_session, read_body
from streamgen.serving.gateway.bodies import HeldSnapshot, Load, SessionChange, SessionFacts, State
from streamgen.serving.gateway.messages import GrantedSettings, PresetOffer
from streamgen.serving.gateway.places import Places
from streamgen.serving.gateway.sessions import HELD_S, HeldSnapshots, RunningSession, Sessions
from streamgen.serving.gateway.socket_peer import SocketPeer
from streamgen.serving.gateway.visit import Peer, Visit, granted_settings, preset_offer
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import PresetFacts
from streamgen.serving.snapshot import pack_snapshot, unpack_snapshot

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
    """Visits of one live host; one object a server. The `Service` of one engine."""

    def __init__(
        self,
        host: LiveHost,
        presets: Mapping[str, PresetFacts],
        *,
        num_places: int,
        clock: Clock,
    ) -> None:
        self.host = host
        self.places = Places(num_places, max_waiting=MAX_WAITING)
        self.running = Sessions()
        self._presets = dict(presets)
        self._snapshots = HeldSnapshots(clock)
        self._clock = clock
        self._is_draining = self._has_failed = False
        self._num_open = 0
        self._rtc_visits: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> State:
        if self._is_draining:
            return State.DRAINING
        if self.has_failed:
            return State.FAILED
        return State.READY if self._presets and self.host.is_running else State.STARTING

    def open(self, presets: Sequence[PresetFacts], num_places: int) -> None:
        """Models are loaded: let visitors in."""
        self._presets = {facts.name: facts for facts in presets}
        self.places.resize(num_places)

    def presets(self) -> list[PresetOffer]:
        return [preset_offer(facts) for facts in self._presets.values()]

    def sessions(self) -> list[SessionFacts]:
        now_s = self._clock.now()
        return [
            SessionFacts(
                session=one.id,
                seconds=round(now_s - one.began_s, 1),
                is_paused=one.stream.is_paused,
                granted=one.granted,
                figures=one.figures,
            )
            for one in self.running.all()
        ]

    async def load(self) -> Load:
        places, state, capacity = self.places, self.state, 0
        if state in (State.READY, State.DRAINING):
            capacity = await asyncio.wrap_future(self.host.capacity())
        return Load(
            state=state,
            sessions=places.num_inside,
            waiting=places.num_waiting,
            places=places.num_places,
            capacity=min(places.num_places, capacity),
        )

    async def change(self, name: str, change: SessionChange) -> GrantedSettings:
        running = self._session(name)
        stream = running.stream
        if change.is_paused is not None:
            (stream.pause if change.is_paused else stream.resume)()
        granted = await asyncio.wrap_future(
            stream.change(
                prompt=change.prompt,
                over_chunks=change.over_chunks,
                strength=change.strength,
                steps=change.steps,
                seed=change.seed,
            )
        )
        running.granted = granted_settings(granted, name)
        await running.tell(running.granted)
        return running.granted

    async def end(self, name: str) -> None:
        await asyncio.wrap_future(self._session(name).stream.close())

    async def snapshot(self, name: str, *, leave: bool) -> bytes:
        stream = self._session(name).stream
        snapshot = await asyncio.wrap_future(stream.snapshot(leave=leave))
        return await asyncio.to_thread(pack_snapshot, snapshot)

    async def hold(self, data: bytes) -> HeldSnapshot:
        snapshot = await asyncio.to_thread(unpack_snapshot, data)
        return HeldSnapshot(snapshot=self._snapshots.hold(snapshot), kept_s=HELD_S)

    async def metrics_text(self) -> str:
        places = self.places
        return (
            f"{self.host.metrics_text()}"
            "# HELP streamgen_places_taken Places that visitors have.\n"
            "# TYPE streamgen_places_taken gauge\n"
            f"streamgen_places_taken {places.num_inside}\n"
            "# HELP streamgen_visitors_waiting Visitors who wait for a place.\n"
            "# TYPE streamgen_visitors_waiting gauge\n"
            f"streamgen_visitors_waiting {places.num_waiting}\n"
        )

    @property
    def num_visitors(self) -> int:
        """Who have a place."""
        return self.places.num_inside

    @property
    def has_failed(self) -> bool:
        return self._has_failed or self.host.has_failed

    def fail(self) -> None:
        """Models could not be loaded: nothing will ever be drawn here."""
        self._has_failed = True

    def drain(self) -> None:
        """Let nothing new begin; what runs goes on."""
        self._is_draining = True
        self.places.close()

    def _session(self, name: str) -> RunningSession:
        try:
            return self.running[name]
        except KeyError:
            raise no_session(name) from None

    async def visit_by_socket(self, socket: WebSocket) -> None:
        await socket.accept()
        if self.state is State.STARTING:
            await socket.close(code=1013, reason="models are being loaded; come back in a moment")
            return
        if self._num_open >= MAX_CONNECTIONS:
            await socket.close(code=1013, reason="too many pages are open; come back later")
            return
        self._num_open += 1
        try:
            await self._visit(SocketPeer(socket))
        finally:
            self._num_open -= 1

    async def visit_by_rtc(self, request: Request) -> dict[str, str]:
        """Answer an offer; the visit goes on beside the request."""
        if not has_webrtc():
            raise HTTPException(501, f"WebRTC needs aiortc: {install_command('webrtc')}")
        if self._num_open >= MAX_CONNECTIONS:
            raise HTTPException(503, "too many pages are open; come back later")
        from streamgen.serving.gateway.rtc_peer import RtcPeer, SessionOffer

        peer = RtcPeer(self._clock)
        self._num_open += 1  # also while it does not connect, and if it never does
        try:
            offer = SessionOffer.model_validate_json(await read_body(request, MAX_OFFER_BYTES))
            answer = await peer.answer(offer)
        except BaseException as error:
            self._num_open -= 1
            if isinstance(error, ValueError | ConfigError):
                raise HTTPException(400, "not an offer of a WebRTC session") from error
            raise
        visit = asyncio.create_task(self._visit_rtc(peer))
        self._rtc_visits.add(visit)
        visit.add_done_callback(self._end_rtc_visit)
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

    def _end_rtc_visit(self, visit: asyncio.Task[None]) -> None:
        self._rtc_visits.discard(visit)
        self._num_open -= 1

    async def _visit(self, peer: Peer) -> None:
        await Visit(
            peer,
            self.host,
            self.places,
            presets=self._presets,
            clock=self._clock,
            sessions=self.running,
            snapshots=self._snapshots,
        ).run()


class WebService(Service, Protocol):
    """A service that visitors reach by socket."""

    async def visit_by_socket(self, socket: WebSocket) -> None: ...

    async def visit_by_rtc(self, request: Request) -> dict[str, str]: ...

    async def close(self) -> None: ...


def make_app(service: WebService) -> FastAPI:
    """The application of a gateway, or of a router; who runs it stops what stands behind it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await service.close()

    app = FastAPI(title="StreamGen", docs_url=None, redoc_url=None, lifespan=lifespan)
    add_routes(app, service)
    if isinstance(service, Gateway):
        _add_watching(app, service)

    @app.post(RTC_PATH, tags=["sessions"])
    async def rtc(request: Request) -> dict[str, str]:
        """Answer the offer of a WebRTC session; its data channel speaks as the socket does."""
        return await service.visit_by_rtc(request)

    app.add_api_websocket_route(SOCKET_PATH, service.visit_by_socket)
    return app


def _add_watching(app: FastAPI, gateway: Gateway) -> None:
    """What one engine tells of itself in detail."""

    @app.get("/metrics.json", tags=["process"])
    async def metrics_json() -> JSONResponse:
        """The metrics of each preset's engine as JSON."""
        return JSONResponse(
            {
                "presets": gateway.host.metrics_json(),
                "places_taken": gateway.places.num_inside,
                "visitors_waiting": gateway.places.num_waiting,
            }
        )

    @app.get("/trace", tags=["process"])
    async def trace(seconds: float = 10.0, preset: str | None = None) -> JSONResponse:
        """What a preset's engine did in the last seconds, for chrome://tracing."""
        names = [offer.name for offer in gateway.presets()]
        name = names[0] if preset is None else preset
        if name not in names:
            raise HTTPException(404, f"there is no preset {name!r} here")
        return JSONResponse(gateway.host.trace(name, last_s=seconds))
