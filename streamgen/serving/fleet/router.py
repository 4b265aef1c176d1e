"""The router: the `Service` of several replicas. It draws nothing and holds no model.

Every LOOK_EVERY_S it asks each replica how full it is; who drains gets its sessions moved, who does
not answer gets nothing new, and who is gone has its sessions go on elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from fastapi import HTTPException, Request, WebSocket
from pydantic import TypeAdapter

from streamgen.clock import Clock
from streamgen.errors import StreamGenError
from streamgen.metrics.export import Metrics
from streamgen.serving.fleet.asking import ask
from streamgen.serving.fleet.leases import Fleet, Replica
from streamgen.serving.fleet.merging import merged
from streamgen.serving.fleet.relay import Relay
from streamgen.serving.fleet.upstream import Upstream
from streamgen.serving.gateway import messages
from streamgen.serving.gateway.api import no_session
from streamgen.serving.gateway.bodies import (
    HeldSnapshot,
    Load,
    SessionChange,
    SessionFacts,
    State,
)
from streamgen.serving.gateway.messages import GrantedSettings, PresetOffer
from streamgen.serving.gateway.places import Places
from streamgen.serving.gateway.sessions import HELD_S, HeldSnapshots, Sessions
from streamgen.serving.snapshot import pack_snapshot, unpack_snapshot

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
LOAD_TIMEOUT_S = 5.0
SUSPECT_AFTER = 3  # questions without an answer
MAX_WAITING = 256  # visitors in line
MAX_CONNECTIONS = 1024

OWN_GAUGES = ("streamgen_places_taken", "streamgen_visitors_waiting")
PRESETS = TypeAdapter(list[PresetOffer])


class Replicas(Protocol):
    """Where replicas come from: processes of this machine, or Ray."""

    async def addresses(self) -> Mapping[str, str]:
        """Name and address of those that are up; a name never comes again."""
        ...

    async def report(self, loads: Sequence[Load], waiting: int) -> None:
        """How full each is and how many visitors wait: whoever decides how many there should be
        goes by that."""
        ...


class Router:
    """Owns the fleet, the line of those who wait, and the visitors' relays."""

    def __init__(self, replicas: Replicas, *, token: str, clock: Clock) -> None:
        """`token` is what replicas want to hear."""
        self.fleet = Fleet()
        self.places = Places(1, max_waiting=MAX_WAITING)
        self.places.resize(0)
        self.token = token
        self._replicas = replicas
        self._clock = clock
        self._presets: list[PresetOffer] = []
        self._relays: dict[str, Relay] = {}
        self._snapshots = HeldSnapshots(clock)
        self._failures: dict[str, int] = {}
        self._is_draining = False
        self._num_open = 0
        self._look: asyncio.Task[None] | None = None
        self._metrics = Metrics(clock)
        self._moves = {
            was_lost: self._metrics.counter(
                "streamgen_moves_total",
                "Sessions that went on at another replica, by why.",
                {"why": "lost" if was_lost else "drained"},
            )
            for was_lost in (False, True)
        }

    @property
    def state(self) -> State:
        if self._is_draining:
            return State.DRAINING
        return State.READY if self.fleet.num_places and self._presets else State.STARTING

    @property
    def num_visitors(self) -> int:
        return self.places.num_inside

    @property
    def has_failed(self) -> bool:
        return False  # replicas come again

    def begin(self) -> None:
        """Look after the replicas from now on; in the event loop."""
        self._look = asyncio.create_task(self._look_after())

    def drain(self) -> None:
        self._is_draining = True
        self.places.close()

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])

    # For relays

    def offer(self) -> messages.Offer:
        return messages.Offer(presets=self._presets, places=self.places.num_places)

    def began(self, relay: Relay) -> None:
        self._relays[relay.name] = relay

    def ended(self, relay: Relay) -> None:
        self._relays.pop(relay.name, None)

    def moved(self, relay: Relay, *, was_lost: bool) -> None:
        self._moves[was_lost].add()

    # The service

    def presets(self) -> list[PresetOffer]:
        return self._presets

    def sessions(self) -> list[SessionFacts]:
        now_s = self._clock.now()
        return [
            SessionFacts(
                session=relay.name,
                seconds=round(now_s - relay.began_s, 1),
                is_paused=relay.is_paused,
                granted=relay.granted,
                figures=relay.figures,
            )
            for relay in self._relays.values()
            if relay.granted is not None
        ]

    async def load(self) -> Load:
        return Load(
            state=self.state,
            sessions=self.places.num_inside,
            waiting=self.places.num_waiting,
            places=self.places.num_places,
            capacity=sum(each.load.capacity for each in self.fleet.replicas if each.is_ready),
        )

    async def change(self, name: str, change: SessionChange) -> GrantedSettings:
        body = change.model_dump_json(exclude_none=True).encode()
        answer = await self._upstream(name).ask("PATCH", "", body)
        if change.is_paused is not None:
            self._relays[name].is_paused = change.is_paused
        granted = GrantedSettings.model_validate_json(answer)
        return granted.model_copy(update={"session": name})

    async def end(self, name: str) -> None:
        await self._upstream(name).ask("DELETE", "")

    async def snapshot(self, name: str, *, leave: bool) -> bytes:
        return await self._upstream(name).snapshot(leave=leave)

    async def hold(self, data: bytes) -> HeldSnapshot:
        snapshot = await asyncio.to_thread(unpack_snapshot, data)
        return HeldSnapshot(snapshot=self._snapshots.hold(snapshot), kept_s=HELD_S)

    async def take_held(self, name: str) -> bytes:
        """A snapshot that a visitor sent; ConfigError if there is none of that name."""
        return await asyncio.to_thread(pack_snapshot, self._snapshots.take(name))

    async def metrics_text(self) -> str:
        gauges = {
            "streamgen_places_taken": ("Places that visitors have.", self.places.num_inside),
            "streamgen_visitors_waiting": (
                "Visitors who wait for a place.", self.places.num_waiting,
            ),
            "streamgen_places": ("Sessions that replicas have memory for.", self.fleet.num_places),
        }  # fmt: skip
        for state in State:
            count = sum(each.load.state is state for each in self.fleet.replicas)
            self._metrics.gauge(
                "streamgen_replicas", "Replicas, by their state.", {"state": state.value}
            ).set(count)
        for name, (text, value) in gauges.items():
            self._metrics.gauge(name, text).set(value)
        ready = [each for each in self.fleet.replicas if each.is_ready]
        texts = await asyncio.gather(*(self._metrics_of(each) for each in ready))
        names = [each.name for each in ready]
        return self._metrics.to_prometheus() + merged(dict(zip(names, texts, strict=True)))

    async def _metrics_of(self, replica: Replica) -> str:
        """Its own, without the gauges that the router has, too; empty if it does not answer."""
        try:
            answer = await ask(replica.address, self.token, "GET", "/metrics")
        except StreamGenError:
            return ""
        lines = answer.decode().splitlines()
        return "\n".join(line for line in lines if not any(own in line for own in OWN_GAUGES))

    async def visit_by_socket(self, socket: WebSocket) -> None:
        await socket.accept()
        if self._num_open >= MAX_CONNECTIONS or self.state is State.STARTING:
            await socket.close(code=1013, reason="no replica is ready; come back in a moment")
            return
        self._num_open += 1
        try:
            await Relay(socket, self, Sessions.new_id(), self._clock).run()
        finally:
            self._num_open -= 1

    async def visit_by_rtc(self, request: Request) -> dict[str, str]:
        raise HTTPException(501, "several replicas are reached by WebSocket only")

    def _upstream(self, name: str) -> Upstream:
        relay = self._relays.get(name)
        if relay is None or relay.upstream is None or not relay.upstream.session:
            raise no_session(name)
        return relay.upstream

    # The replicas

    async def _look_after(self) -> None:
        while True:
            try:
                await self._look_once()
            except Exception as error:  # the task's root: it goes on
                logger.error("looking after replicas failed", exc_info=error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_once(self) -> None:
        addresses = await self._replicas.addresses()
        for replica in self.fleet.replicas:
            if addresses.get(replica.name) != replica.address:
                logger.warning("replica %s is gone", replica.name)
                self.fleet.leave(replica.name)  # its relays notice by their sockets
                self._failures.pop(replica.name, None)
        for name, address in addresses.items():
            self.fleet.join(name, address)
        await asyncio.gather(*(self._ask_load(replica) for replica in self.fleet.replicas))
        if self.places.num_places != self.fleet.num_places:
            self.places.resize(self.fleet.num_places)
        leaving = [self._relays[name] for name in self.fleet.to_move() if name in self._relays]
        await asyncio.gather(*(relay.leave() for relay in leaving))
        loads = [replica.load for replica in self.fleet.replicas]
        await self._replicas.report(loads, self.places.num_waiting)

    async def _ask_load(self, replica: Replica) -> None:
        try:
            answer = await ask(
                replica.address, self.token, "GET", "/streamgen/load", timeout_s=LOAD_TIMEOUT_S
            )
            load = Load.model_validate_json(answer)
            if load.state is State.READY and not self._presets:
                answer = await ask(replica.address, self.token, "GET", "/streamgen/presets")
                self._presets = PRESETS.validate_json(answer)
        except (StreamGenError, ValueError) as error:
            self._failures[replica.name] = self._failures.get(replica.name, 0) + 1
            if self._failures[replica.name] == SUSPECT_AFTER:
                logger.warning("replica %s does not answer: %s", replica.name, error)
                self.fleet.suspect(replica.name)
            return
        self._failures[replica.name] = 0
        self.fleet.observe(replica.name, load)
