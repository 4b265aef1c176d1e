"""Visits that end at any step of the event loop: no network, no threads, no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from itertools import permutations
from typing import TypeVar

import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.serving.gateway import messages
from streamgen.serving.gateway.messages import Command, Report
from streamgen.serving.gateway.places import Places
from streamgen.serving.gateway.sessions import HeldSnapshots, Sessions
from streamgen.serving.gateway.visit import Arrival, Visit
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import Granted, PresetFacts, Wishes
from streamgen.serving.live_stream import LiveStream
from streamgen.serving.snapshot import Snapshot
from streamgen.types import Frame, PictureSize

T = TypeVar("T")

FACTS = PresetFacts("still", "", "", False, PictureSize(8, 8), 8.0, 1, 1, 0)
START = messages.Start(type="start", preset="still", prompt="ice")
STOP = messages.Stop(type="stop")
MOMENTS = range(40)  # steps of the event loop; the longest of these visits has settled in 25
SETTLED = 200  # steps after which nothing moves any more


class HostAtOnce(LiveHost):
    """Does what it is asked for when it is asked, or when `answer` says so."""

    def __init__(self, clock: SimulatedClock, *, answers_late: bool = False) -> None:
        super().__init__({"still": lambda: pytest.fail("no model here")}, clock=clock)
        self.open_streams: list[LiveStream] = []
        self._late: list[Callable[[], None]] | None = [] if answers_late else None

    def open(
        self, wishes: Wishes, facts: PresetFacts, *, snapshot: Snapshot | None = None
    ) -> LiveStream:
        stream = LiveStream(self, wishes, facts=facts, clip=4)
        self.open_streams.append(stream)
        return stream

    def call(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def answer() -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(work())

        if self._late is None:
            answer()
        else:
            self._late.append(answer)
        return future

    def answer(self) -> None:
        """Do what waits, as the thread of a busy engine does at last."""
        while self._late:
            self._late.pop(0)()

    def granted(self, stream: LiveStream) -> Granted:
        return Granted(stream.wishes, stream.facts, ())

    def end(self, stream: LiveStream, error: Exception | None = None) -> None:
        self.open_streams.remove(stream)
        stream.output.close(error)


class Script:
    """A visitor who says what the test says, when it does."""

    def __init__(self) -> None:
        self._commands: asyncio.Queue[Command | None] = asyncio.Queue()
        self.heard: list[Report] = []
        self.num_shown = 0

    def say(self, command: Command) -> None:
        self._commands.put_nowait(command)

    def leave(self) -> None:
        self._commands.put_nowait(None)

    async def receive(self) -> Command | Arrival | None:
        return await self._commands.get()

    async def send(self, report: Report) -> None:
        await asyncio.sleep(0)  # a socket may have to wait
        self.heard.append(report)

    async def show(self, frame: Frame) -> bool:
        await asyncio.sleep(0)
        self.num_shown += 1
        return True


class House:
    """Places and a host, and the visits that there are."""

    def __init__(self, *, num_places: int = 1, answers_late: bool = False) -> None:
        self.clock = SimulatedClock()
        self.host = HostAtOnce(self.clock, answers_late=answers_late)
        self.places = Places(num_places, max_waiting=8)

    def enter(self) -> tuple[Script, asyncio.Task[None]]:
        peer = Script()
        visit = Visit(
            peer,
            self.host,
            self.places,
            presets={"still": FACTS},
            clock=self.clock,
            sessions=Sessions(),
            snapshots=HeldSnapshots(self.clock),
        )
        return peer, asyncio.create_task(visit.run())

    def draw(self) -> None:
        """A picture comes out of every stream."""
        frame = Frame(np.zeros((8, 8, 3), np.uint8), 0.0, self.clock.now())
        for stream in self.host.open_streams:
            stream.output.put(frame)

    @property
    def is_empty(self) -> bool:
        return not (self.places.num_inside or self.places.num_waiting or self.host.open_streams)


def at_every_moment(test: Callable[[int], Coroutine[object, object, None]]) -> None:
    for moment in MOMENTS:
        asyncio.run(test(moment))


async def steps(num: int) -> None:
    for _ in range(num):
        await asyncio.sleep(0)


def test_a_place_is_free_whenever_the_visitor_goes_after_a_picture():
    """Also when that is the very step in which the picture is handed over."""

    async def test(moment: int) -> None:
        house = House()
        peer, visit = house.enter()
        peer.say(START)
        await steps(SETTLED)
        assert house.places.num_inside == 1
        for _ in range(3):  # so that one waits for its moment
            house.draw()
        await steps(SETTLED)
        house.draw()
        await steps(moment)
        peer.leave()
        await steps(SETTLED)
        assert visit.done(), moment
        assert house.is_empty, moment

    at_every_moment(test)


@pytest.mark.parametrize("answers_late", [False, True])
def test_a_place_is_free_whenever_the_visitor_goes_while_the_stream_opens(
    answers_late: bool,
):
    async def test(moment: int) -> None:
        house = House(answers_late=answers_late)
        peer, visit = house.enter()
        peer.say(START)
        await steps(moment)
        peer.leave()
        for _ in range(3):
            await steps(SETTLED)
            house.host.answer()
        await steps(SETTLED)
        assert visit.done(), moment
        assert house.is_empty, moment

    at_every_moment(test)


def test_a_visitor_may_start_and_stop_at_any_moment_and_has_one_stream_at_most():
    async def test(moment: int) -> None:
        house = House(num_places=2)
        peer, visit = house.enter()
        for command in (START, START, STOP, START, STOP, STOP, START):
            peer.say(command)
            await steps(moment)
            house.draw()
            assert len(house.host.open_streams) <= 1
            assert house.places.num_inside <= 1
        await steps(SETTLED)
        assert len(house.host.open_streams) == house.places.num_inside == 1
        assert isinstance(peer.heard[-1], messages.GrantedSettings)
        peer.leave()
        await steps(SETTLED)
        assert visit.done(), moment
        assert house.is_empty, moment

    at_every_moment(test)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_line_of_three_is_let_in_one_by_one_in_whatever_order_they_go(
    order: tuple[int, int, int],
):
    """The one inside, the next in line and the last, each `moment` steps after the other."""

    async def test(moment: int) -> None:
        house = House()
        peers, visits = zip(*(house.enter() for _ in range(3)), strict=True)
        for peer in peers:
            peer.say(START)
            await steps(SETTLED)
        assert house.places.num_waiting == 2
        for who in order:
            house.draw()
            peers[who].leave()
            await steps(moment)
            assert house.places.num_inside <= 1
        await steps(SETTLED)
        assert all(visit.done() for visit in visits)
        assert house.is_empty, moment

    at_every_moment(test)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_who_is_left_of_a_line_gets_the_place(order: tuple[int, int, int]):
    async def test() -> None:
        house = House()
        peers, _ = zip(*(house.enter() for _ in range(3)), strict=True)
        for peer in peers:
            peer.say(START)
            await steps(SETTLED)
        *leavers, last = order
        for who in leavers:
            peers[who].leave()
        await steps(SETTLED)
        assert isinstance(peers[last].heard[-1], messages.GrantedSettings)
        assert (house.places.num_inside, house.places.num_waiting) == (1, 0)
        peers[last].leave()
        await steps(SETTLED)
        assert house.is_empty

    asyncio.run(test())


def test_a_server_that_closes_ends_a_visit_at_any_moment_also_one_that_is_ending():
    async def test(moment: int) -> None:
        house = House(answers_late=True)
        peer, visit = house.enter()
        peer.say(START)
        await steps(SETTLED)
        house.host.answer()
        await steps(SETTLED)
        house.draw()
        peer.leave()
        await steps(moment)
        visit.cancel()
        for _ in range(3):
            await steps(SETTLED)
            house.host.answer()
        await steps(SETTLED)
        assert visit.done(), moment
        assert house.is_empty, moment

    at_every_moment(test)


def test_pictures_of_words_wait_where_they_are_until_those_before_are_shown():
    """So their host is held up, draws no faster than they are shown, and none is left out."""

    async def test() -> None:
        house = House()
        peer, visit = house.enter()
        peer.say(START)
        await steps(SETTLED)
        for waiting in (0, 0, 1):  # shown at once, then waiting for its moment, then left there
            house.draw()
            await steps(SETTLED)
            (stream,) = house.host.open_streams
            assert stream.output.num_waiting == waiting
        assert peer.num_shown == 1
        peer.leave()
        await visit

    asyncio.run(test())
