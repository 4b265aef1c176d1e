"""Places for visitors, and the line of those who wait for one. For one event loop; no network."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from streamgen.errors import CapacityError

RETRY_AFTER_S = 5.0  # when there may be a place again; nobody knows how long visitors stay

Tell = Callable[[int], Awaitable[None]]


class Places:
    """So many may be inside at once; who comes later waits in order of arrival."""

    def __init__(self, num_places: int, *, max_waiting: int) -> None:
        if num_places < 1 or max_waiting < 0:
            raise ValueError(f"no visitor fits into {num_places} places, {max_waiting} waiting")
        self.num_places = num_places
        self._max_waiting = max_waiting
        self._num_inside = 0
        self._line: deque[asyncio.Event] = deque()
        self._is_open = True

    @property
    def num_inside(self) -> int:
        return self._num_inside

    @property
    def num_waiting(self) -> int:
        return len(self._line)

    def resize(self, num_places: int) -> None:
        """So many may be inside from now on; who is inside stays."""
        self.num_places = num_places
        self._wake()

    def close(self) -> None:
        """Send away who waits, and who comes; who is inside stays."""
        self._is_open = False
        self._wake()

    @asynccontextmanager
    async def place(self, tell: Tell, *, may_wait: bool = True) -> AsyncGenerator[None]:
        """Hold a place inside the block; `tell` hears one's position while there is none, 1 first.

        Raises CapacityError if the line is full, too, or nobody `may_wait` in it.
        """
        await self._enter(tell, self._max_waiting if may_wait else 0)
        try:
            yield
        finally:
            self._num_inside -= 1
            self._wake()

    async def _enter(self, tell: Tell, max_waiting: int) -> None:
        self._check_open()
        if self._num_inside < self.num_places and not self._line:
            self._num_inside += 1
            return
        if len(self._line) >= max_waiting:
            raise CapacityError(
                f"all {self.num_places} places are taken and {len(self._line)} visitors wait; "
                f"come back in a while",
                retry_in_s=RETRY_AFTER_S,
            )
        moved = asyncio.Event()
        self._line.append(moved)
        try:
            while self._line[0] is not moved or self._num_inside >= self.num_places:
                moved.clear()
                await tell(1 + self._line.index(moved))
                await moved.wait()
                self._check_open()
            self._num_inside += 1
        finally:
            self._line.remove(moved)
            self._wake()

    def _check_open(self) -> None:
        if not self._is_open:
            raise CapacityError(
                "this server is ending and begins no new stream; try again",
                retry_in_s=RETRY_AFTER_S,
            )

    def _wake(self) -> None:
        for moved in self._line:
            moved.set()
