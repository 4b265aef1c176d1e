"""Time as an argument: the only module that asks the operating system what time it is."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in seconds; its zero means nothing."""

    def now(self) -> float: ...

    def sleep(self, duration_s: float) -> None:
        """Wait for `duration_s`; zero and negative durations return at once."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep(self, duration_s: float) -> None:
        if duration_s > 0:
            time.sleep(duration_s)


class SimulatedClock:
    """A clock that jumps: sleeping costs nothing, so that an hour of stream is a unit test."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        return self._now_s

    def sleep(self, duration_s: float) -> None:
        self._now_s += max(0.0, duration_s)

    def advance_to(self, time_s: float) -> None:
        """Jump to `time_s`; a clock never goes back."""
        self._now_s = max(self._now_s, time_s)
