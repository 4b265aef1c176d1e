"""One visitor of the router: what goes to the replica that draws, what comes from it, and how the
stream goes on elsewhere when that replica drains or is lost.

    visitor <--- WebSocket ---> Relay <--- WebSocket ---> replica

Pictures pass through as they are. From time to time the relay takes a snapshot, so that of a
replica that dies no more than the pictures since then are lost; from one that drains, none are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from enum import Enum
from typing import Any, Protocol

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from streamgen.clock import Clock
from streamgen.errors import CapacityError, ConnectionLostError, StreamGenError
from streamgen.serving.fleet.leases import Fleet, Replica
from streamgen.serving.fleet.upstream import Upstream, connected
from streamgen.serving.gateway import messages
from streamgen.serving.gateway.messages import Command, Start, read_command
from streamgen.serving.gateway.places import Places

logger = logging.getLogger(__name__)

SNAPSHOT_EVERY_S = 1.0
PATIENCE_S = 60.0  # with which a stream looks for another replica
LOOK_EVERY_S = 0.2
NO_WORD_YET_FPS = 30.0  # what a visitor is told while nobody draws its pictures


class Outcome(Enum):
    """How the stay at one replica ended."""

    ENDED = "ended"
    REFUSED = "refused"
    MOVING = "moving"
    LOST = "lost"


class Desk(Protocol):
    """What relays share; the router."""

    fleet: Fleet
    places: Places

    @property
    def token(self) -> str: ...

    def offer(self) -> messages.Offer: ...

    async def take_held(self, name: str) -> bytes: ...

    def began(self, relay: Relay) -> None: ...

    def ended(self, relay: Relay) -> None: ...

    def moved(self, relay: Relay, *, was_lost: bool) -> None: ...


class Relay:
    """Owns at most one stream at a time."""

    def __init__(self, socket: WebSocket, desk: Desk, name: str, clock: Clock) -> None:
        self._socket = socket
        self._desk = desk
        self.name = name
        """Of its session, wherever that is drawn."""
        self._clock = clock
        self._play: asyncio.Task[None] | None = None
        self._start: Start | None = None
        self._snapshot: bytes | None = None
        self._leaving: asyncio.Task[bytes] | None = None
        self._num_on_the_way = 0
        self._lost_s: float | None = None
        self.upstream: Upstream | None = None
        self.is_paused = False
        self.began_s = 0.0
        self.granted: messages.GrantedSettings | None = None
        self.figures: messages.Figures | None = None

    async def run(self) -> None:
        """Talk until the visitor goes."""
        try:
            await self._tell(self._desk.offer())
            while True:
                came = await self._socket.receive()
                if came["type"] == "websocket.disconnect":
                    return
                try:
                    if came.get("bytes") is not None:
                        await self._pass_picture(came["bytes"])
                    else:
                        text = came.get("text") or ""
                        await self._follow(read_command(text), text)
                except StreamGenError as error:
                    await self._tell(messages.problem_of(error, fatal=False))
        except (WebSocketDisconnect, RuntimeError):
            return
        finally:
            await self._end_play()

    async def leave(self) -> None:
        """Go on elsewhere: take what is needed there; the replica shows what it has finished."""
        upstream = self.upstream
        if upstream is None or self._leaving is not None or not upstream.session:
            return
        self._leaving = asyncio.create_task(upstream.snapshot(leave=True))
        await asyncio.wait([self._leaving])  # whoever reads from the replica looks at the result

    async def _follow(self, command: Command, text: str) -> None:
        if isinstance(command, Start):
            await self._end_play()
            held = command.snapshot
            self._snapshot = None if held is None else await self._desk.take_held(held)
            self._start = command
            self._play = asyncio.create_task(self._run_stream(may_wait=command.wait))
            return
        if isinstance(command, messages.Stop):
            await self._end_play()
            await self._tell(messages.Ended())
            return
        if isinstance(command, messages.Pause | messages.Resume):
            self.is_paused = isinstance(command, messages.Pause)
        if self.upstream is not None:
            with contextlib.suppress(ConnectionLostError):  # whoever reads from it hears that
                await self.upstream.send(text)

    async def _pass_picture(self, data: bytes) -> None:
        if self.upstream is None or not self.upstream.session:
            await self._tell(messages.Taken(fps=NO_WORD_YET_FPS))
            return
        self._num_on_the_way += 1
        with contextlib.suppress(ConnectionLostError):
            await self.upstream.send(data)

    async def _run_stream(self, *, may_wait: bool) -> None:
        """Hold a place while the stream lasts, wherever it is drawn."""
        try:
            async with self._desk.places.place(self._tell_position, may_wait=may_wait):
                self.began_s = self._clock.now()
                self._desk.began(self)
                try:
                    await self._stay_somewhere()
                finally:
                    self._desk.ended(self)
                    self._desk.fleet.release(self.name)
                    self.granted = self.figures = None
        except StreamGenError as error:
            await self._tell(messages.problem_of(error, fatal=True))
        except (WebSocketDisconnect, RuntimeError):
            return  # the visitor has gone
        except Exception as error:  # the task's root: the visitor hears that it is over
            logger.error("a relay failed", exc_info=error)
            failed = StreamGenError("the router failed; its log says why")
            await self._tell(messages.problem_of(failed, fatal=True))

    async def _stay_somewhere(self) -> None:
        """At one replica after the other, until the stream has ended."""
        tried: set[str] = set()
        refusal: dict[str, Any] | None = None
        while True:
            replica = await self._find(tried, refusal)
            if replica is None:
                await self._socket.send_json(refusal)
                return
            outcome, refusal = await self._stay(replica)
            if outcome is Outcome.ENDED:
                await self._tell(messages.Ended())
                return
            if refusal is not None and not refusal["retryable"]:
                await self._socket.send_json(refusal)
                return
            tried = {*tried, replica.name}
            if outcome is Outcome.LOST:
                self._desk.fleet.suspect(replica.name)
            if outcome is not Outcome.REFUSED and self._lost_s is None and self.granted:
                self._lost_s = self._clock.now()
                self._desk.moved(self, was_lost=outcome is Outcome.LOST)

    async def _find(self, tried: set[str], refusal: dict[str, Any] | None) -> Replica | None:
        """A replica for the stream; None if each has refused. CapacityError after PATIENCE_S."""
        until_s = self._clock.now() + PATIENCE_S
        while self._clock.now() < until_s:
            replica = self._desk.fleet.place(self.name, without=tried)
            if replica is not None:
                return replica
            if refusal is not None:
                if self.granted is None:
                    return None  # the last refusal is what the visitor hears
                refusal = None  # it was let in once, so it waits for room
            tried.clear()  # who was lost may be up again
            await asyncio.sleep(LOOK_EVERY_S)
        raise CapacityError("no replica has a place any more; try again", retry_in_s=PATIENCE_S)

    async def _stay(self, replica: Replica) -> tuple[Outcome, dict[str, Any] | None]:
        """Stream from one replica; returns how that ended, and the problem if it was refused."""
        assert self._start is not None
        try:
            async with connected(replica, self._desk.token) as upstream:
                await upstream.start(self._start, self._snapshot)
                keeping = asyncio.create_task(self._keep_snapshots(upstream))
                self.upstream = upstream
                try:
                    return await self._pump(upstream)
                finally:
                    self.upstream = None
                    keeping.cancel()
                    await self._answer_pictures()
        except ConnectionLostError as error:
            logger.warning("session %s: %s", self.name, error)
            return Outcome.LOST, None
        except CapacityError as error:  # no room for its snapshot
            logger.info("session %s: %s", self.name, error)
            return Outcome.REFUSED, None
        finally:
            if self._leaving is not None:
                self._leaving.cancel()
                self._leaving = None

    async def _pump(self, upstream: Upstream) -> tuple[Outcome, dict[str, Any] | None]:
        """Pass on what comes; a message that the relay does not know passes as it is."""
        while True:
            data = await upstream.receive()
            if isinstance(data, bytes):
                await self._socket.send_bytes(data)
                continue
            match data["type"]:
                case "granted":
                    await self._note_granted(upstream, data)
                case "ended":
                    return await self._left() if self._leaving else Outcome.ENDED, None
                case "problem" if data["fatal"]:
                    if await upstream.has_failed():
                        return Outcome.LOST, None
                    return Outcome.REFUSED, data
                case "figures":
                    figures = messages.Figures(**data).model_copy(
                        update={
                            "streams": self._desk.places.num_inside,
                            "places": self._desk.places.num_places,
                        }
                    )
                    self.figures = figures
                    await self._tell(figures)
                case "taken":
                    self._num_on_the_way = max(0, self._num_on_the_way - 1)
                    await self._socket.send_json(data)
                case _:
                    await self._socket.send_json(data)

    async def _left(self) -> Outcome:
        """The replica has shown all that it will: with what the stream goes on elsewhere."""
        assert self._leaving is not None
        try:
            self._snapshot = await self._leaving
        except StreamGenError as error:
            logger.warning("session %s leaves without a snapshot: %s", self.name, error)
            return Outcome.LOST
        return Outcome.MOVING

    async def _note_granted(self, upstream: Upstream, data: dict[str, Any]) -> None:
        """Remember what the stream is now, for beginning it elsewhere."""
        assert self._start is not None
        is_first = not upstream.session
        upstream.session = data["session"]
        granted = messages.GrantedSettings(**data).model_copy(update={"session": self.name})
        wishes = {name: getattr(granted, name) for name in ("prompt", "seed", "strength", "steps")}
        self._start = self._start.model_copy(update=wishes)
        self.granted = granted
        if is_first and self._lost_s is not None:
            gap_s = self._clock.now() - self._lost_s
            self._lost_s = None
            await self._tell(messages.Moved(reason="its process ended", gap_s=round(gap_s, 3)))
        if is_first and self.is_paused:
            await upstream.send(messages.Pause().model_dump_json())
        await self._tell(granted)

    async def _keep_snapshots(self, upstream: Upstream) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_EVERY_S)
            if not upstream.session or self._leaving is not None:
                continue
            try:
                snapshot = await upstream.snapshot(leave=False)
            except StreamGenError as error:
                logger.info("no snapshot of session %s: %s", self.name, error)
                continue
            if self._leaving is None:
                self._snapshot = snapshot

    async def _answer_pictures(self) -> None:
        """Those that were on the way are lost; the visitor may send others."""
        for _ in range(self._num_on_the_way):
            await self._tell(messages.Taken(fps=NO_WORD_YET_FPS))
        self._num_on_the_way = 0

    async def _tell(self, report: messages.Report) -> None:
        await self._socket.send_text(report.model_dump_json())

    async def _tell_position(self, position: int) -> None:
        await self._tell(messages.Waiting(position=position))

    async def _end_play(self) -> None:
        play = self._play
        if play is not None:
            play.cancel()
            await asyncio.wait([play])
            self._play = None
