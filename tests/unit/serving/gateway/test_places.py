"""Places, and the line before them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress

import pytest

from streamgen.errors import CapacityError
from streamgen.serving.gateway.places import Places


class Visitor:
    """Comes, hears its position, stays until it is let go."""

    def __init__(self, places: Places) -> None:
        self.heard: list[int] = []
        self.is_inside = False
        self.leaves = asyncio.Event()
        self.task = asyncio.create_task(self._come(places))

    async def _come(self, places: Places) -> None:
        async with places.place(self._hear):
            self.is_inside = True
            try:
                await self.leaves.wait()
            finally:
                self.is_inside = False

    async def _hear(self, position: int) -> None:
        self.heard.append(position)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def run(test: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def test_who_comes_first_is_first_and_everybody_hears_the_position():
    async def test() -> None:
        places = Places(2, max_waiting=5)
        visitors = [Visitor(places) for _ in range(5)]
        await settle()
        assert [visitor.is_inside for visitor in visitors] == [True, True, False, False, False]
        assert [visitor.heard for visitor in visitors] == [[], [], [1], [2], [3]]
        visitors[0].leaves.set()
        await settle()
        assert [visitor.is_inside for visitor in visitors] == [False, True, True, False, False]
        assert visitors[4].heard[-1] == 2
        for visitor in visitors:
            visitor.leaves.set()
        await settle()
        assert places.num_inside == places.num_waiting == 0

    run(test())


def test_who_leaves_the_line_holds_nobody_up():
    async def test() -> None:
        places = Places(1, max_waiting=5)
        inside, quitter, last = (Visitor(places) for _ in range(3))
        await settle()
        quitter.task.cancel()
        await settle()
        assert last.heard[-1] == 1
        inside.leaves.set()
        await settle()
        assert last.is_inside
        last.task.cancel()
        with suppress(asyncio.CancelledError):
            await last.task
        assert places.num_inside == 0

    run(test())


def test_a_newcomer_does_not_overtake_the_line():
    async def test() -> None:
        places = Places(1, max_waiting=5)
        first, second = Visitor(places), Visitor(places)
        await settle()
        first.leaves.set()
        third = Visitor(places)
        await settle()
        assert second.is_inside
        assert not third.is_inside
        second.task.cancel()
        third.task.cancel()
        await settle()

    run(test())


def test_a_line_that_is_full_refuses():
    async def test() -> None:
        places = Places(1, max_waiting=1)
        visitors = [Visitor(places) for _ in range(3)]
        await settle()
        with pytest.raises(CapacityError, match="come back"):
            await visitors[2].task
        for visitor in visitors[:2]:
            visitor.task.cancel()
        await settle()
        assert places.num_inside == 0

    run(test())


def test_a_door_that_closes_sends_away_who_waits_and_leaves_who_is_inside():
    async def test() -> None:
        places = Places(1, max_waiting=4)
        told: list[int] = []

        async def tell(position: int) -> None:
            told.append(position)

        async def come() -> None:
            async with places.place(tell):
                pass

        async with places.place(tell):
            waiting = asyncio.create_task(come())
            while not told:
                await asyncio.sleep(0)
            places.close()
            with pytest.raises(CapacityError, match="begins no new stream"):
                await waiting
            assert places.num_inside == 1
        with pytest.raises(CapacityError, match="begins no new stream"):
            await come()
        assert (places.num_inside, places.num_waiting) == (0, 0)

    asyncio.run(test())


def test_more_places_let_in_who_waits():
    async def test() -> None:
        places = Places(1, max_waiting=4)
        entered, told = asyncio.Event(), list[int]()

        async def tell(position: int) -> None:
            told.append(position)

        async def come() -> None:
            async with places.place(tell):
                entered.set()

        async with places.place(tell):
            waiting = asyncio.create_task(come())
            while not told:
                await asyncio.sleep(0)
            places.resize(2)
            await asyncio.wait_for(entered.wait(), 5)
            await waiting

    asyncio.run(test())
