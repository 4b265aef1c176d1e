"""Re-timing: frames are made in bursts of a chunk, and are to be seen evenly.

Pacer gives each frame its moment; ConstantRate turns that into exactly one frame a period for
sinks that demand it (virtual cameras, RTMP). Both compute with absolute times of an injected Clock,
never wait, and know neither queues nor sinks: their owner sleeps until `due_s` and then takes.
Throttle keeps production that could be faster from running ahead of the viewers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from streamgen.clock import Clock
from streamgen.types import Frame

DEAD_BAND_S = 0.010  # deviations up to here are jitter and change nothing
INTERVAL_WEIGHT = 0.1  # of the newest chunk interval in the moving average
STALL_INTERVALS = 3.0  # a chunk that takes more average intervals than this is a stall
CORRECTION = 0.05  # by how much the rate may differ from the content's to mend the delay
JITTER_MARGIN = 2.0  # mean deviations of the chunk interval that are kept in reserve


class Timing(Protocol):
    """When which frame is to be seen: Pacer or ConstantRate."""

    @property
    def due_s(self) -> float | None: ...

    @property
    def num_waiting(self) -> int:
        """Frames that were added and are still to be seen."""
        ...

    @property
    def num_lost(self) -> int:
        """Frames that were added and will never be seen."""
        ...

    def add(self, frames: Sequence[Frame]) -> None: ...

    def take(self) -> Frame | None: ...


class Pacer:
    """Spreads the frames of each chunk over the time that the next chunk will take.

    The rate is frames a chunk over the moving average of the chunk interval, and never more than
    `content_fps`, the rate at which the content is natural: production that is faster waits here.
    The delay that pacing adds at a chunk's arrival is steered, by at most CORRECTION of the rate,
    to what the jitter of arrivals demands, a chunk's time at most; a delay of more than a chunk
    beyond that is made up for at the natural rate. Frames due late are shown at once and the
    schedule moves with them, so that a stall is followed by the normal rate and never by a burst.

    With more than `max_waiting` frames the oldest are dropped and counted.
    """

    def __init__(self, clock: Clock, *, content_fps: float, max_waiting: int) -> None:
        if content_fps <= 0 or max_waiting < 1:
            raise ValueError(f"content_fps {content_fps} and max_waiting {max_waiting} must be > 0")
        self._clock = clock
        self._shortest_s = 1.0 / content_fps
        self._max_waiting = max_waiting
        self._frames: deque[Frame] = deque()
        self._next_s = 0.0  # when the next frame is due
        self._has_shown = False
        self._arrived_s: float | None = None  # when the newest chunk came
        self._interval_s: float | None = None  # moving average
        self._deviation_s = 0.0  # moving average of |interval - average|
        self._was_stall = False
        self._content_s = self._shortest_s  # seconds a frame by the rate of production
        self._period_s = self._shortest_s  # the same, with the correction of the delay
        self._num_dropped = 0
        self._num_skipped = 0
        self._num_stalls = 0

    @property
    def num_waiting(self) -> int:
        return len(self._frames)

    @property
    def num_dropped(self) -> int:
        return self._num_dropped

    @property
    def num_skipped(self) -> int:
        """Frames never shown because a newer one was due at the same look of `take_newest`."""
        return self._num_skipped

    @property
    def num_lost(self) -> int:
        return self._num_dropped + self._num_skipped

    @property
    def num_stalls(self) -> int:
        """How often the schedule had to move because a frame was late by more than DEAD_BAND_S."""
        return self._num_stalls

    @property
    def fps(self) -> float:
        """The rate at which frames become due now."""
        return 1.0 / self._period_s

    @property
    def due_s(self) -> float | None:
        """When, by the clock, the next frame is due; None while there is none."""
        return self._next_s if self._frames else None

    def add(self, frames: Sequence[Frame]) -> None:
        """Note that a chunk of `frames` has arrived now."""
        if not frames:
            return
        now_s = self._clock.now()
        if not self._frames:
            self._move_if_late(now_s)
        self._measure_interval(now_s, len(frames))
        self._steer_delay(now_s, len(frames))
        self._frames.extend(frames)
        while len(self._frames) > self._max_waiting:
            self._frames.popleft()
            self._num_dropped += 1

    def take(self) -> Frame | None:
        """The next frame if its time has come, else None."""
        now_s = self._clock.now()
        if not self._frames or now_s < self._next_s:
            return None
        self._move_if_late(now_s)
        return self._pop()

    def take_newest(self) -> Frame | None:
        """The newest frame whose time has come, else None; those before it are never shown.

        For an owner that looks at moments of its own: it keeps the schedule however late it looks.
        """
        now_s = self._clock.now()
        newest: Frame | None = None
        while self._frames and now_s >= self._next_s:
            self._num_skipped += newest is not None
            newest = self._pop()
        return newest

    def _pop(self) -> Frame:
        self._has_shown = True
        self._next_s += self._period_s
        return self._frames.popleft()

    def _move_if_late(self, now_s: float) -> None:
        """Begin the schedule anew if the next frame, or who shows it, comes after its moment."""
        if not self._has_shown:
            self._next_s = now_s
        elif now_s - self._next_s > DEAD_BAND_S:
            self._num_stalls += 1
            self._next_s = now_s

    def _measure_interval(self, now_s: float, num_frames: int) -> None:
        arrived_s, self._arrived_s = self._arrived_s, now_s
        if arrived_s is None:
            return
        sample_s = now_s - arrived_s
        if self._interval_s is None:
            self._interval_s = sample_s
        elif sample_s > STALL_INTERVALS * self._interval_s and not self._was_stall:
            self._was_stall = True  # one is a stall; two in a row are the new rate
            return
        elif self._was_stall and sample_s > STALL_INTERVALS * self._interval_s:
            self._interval_s = sample_s
        else:
            difference_s = sample_s - self._interval_s
            self._interval_s += INTERVAL_WEIGHT * difference_s
            self._deviation_s += INTERVAL_WEIGHT * (abs(difference_s) - self._deviation_s)
        self._was_stall = False
        self._content_s = max(self._shortest_s, self._interval_s / num_frames)

    def _steer_delay(self, now_s: float, num_frames: int) -> None:
        """Choose the period so that the delay moves towards the reserve within one chunk."""
        chunk_s = num_frames * self._content_s
        delay_s = max(0.0, self._next_s - now_s) + len(self._frames) * self._content_s
        excess_s = delay_s - min(chunk_s, JITTER_MARGIN * self._deviation_s)
        if abs(excess_s) <= DEAD_BAND_S:
            self._period_s = self._content_s
            return
        share = excess_s / chunk_s
        self._period_s = self._content_s * (1.0 - min(CORRECTION, max(-CORRECTION, share)))
        if share > 1.0:  # left over from a slower time: gone within a chunk, if that is no hurry
            natural_s = max(self._shortest_s, self._content_s / (1.0 + share))
            self._period_s = min(self._period_s, natural_s)


class ConstantRate:
    """Exactly one frame each 1/fps seconds: the newest that is due, or the last one once more.

    Periods that the owner slept through are left out, not made up for. Frames carry `pts_s` = their
    period's number / fps, so that an encoder sees no gap shorter than a period.
    """

    def __init__(self, pacer: Pacer, clock: Clock, *, fps: float) -> None:
        if fps <= 0:
            raise ValueError(f"a rate is more than 0 frames/s, not {fps}")
        self._pacer = pacer
        self._clock = clock
        self._fps = fps
        self._start_s: float | None = None  # when period 0 began: with the first frame
        self._period = 0
        self._last: Frame | None = None
        self._num_repeated = 0

    @property
    def num_repeated(self) -> int:
        """Periods that showed the frame before once more."""
        return self._num_repeated

    @property
    def num_waiting(self) -> int:
        return self._pacer.num_waiting

    @property
    def num_lost(self) -> int:
        return self._pacer.num_lost

    def add(self, frames: Sequence[Frame]) -> None:
        """Note that a chunk of `frames` has arrived now."""
        self._pacer.add(frames)

    @property
    def due_s(self) -> float | None:
        """When the next period begins; before the first frame, when that is due."""
        if self._start_s is None:
            return self._pacer.due_s
        return self._start_s + self._period / self._fps

    def take(self) -> Frame | None:
        """The frame of the period that has begun; None if it has been taken or none ever came."""
        now_s = self._clock.now()
        if self._start_s is not None and now_s < self._start_s + self._period / self._fps:
            return None
        newest = self._pacer.take_newest()
        if newest is not None:
            self._last = newest
        elif self._last is not None:
            self._num_repeated += 1
        if self._last is None:
            return None
        if self._start_s is None:
            self._start_s = now_s
        elapsed = int((now_s - self._start_s) * self._fps + 1e-6)
        period = max(self._period, elapsed)
        self._period = period + 1
        return replace(self._last, pts_s=period / self._fps)


class Throttle:
    """Lets production run at most `ahead_s` of content ahead of `fps` frames a second.

    A production that was late may catch up by as much, and by no more: a long stall is not made up
    for. `ahead_s` is what covers the unevenness of production.
    """

    def __init__(self, clock: Clock, *, fps: float, ahead_s: float) -> None:
        self._clock = clock
        self._fps = fps
        self._ahead_s = ahead_s
        self._content_s: float | None = None  # until when, by the clock, there is content

    def wait(self) -> None:
        """Sleep until more may be made."""
        if self._content_s is not None:
            self._clock.sleep(self._content_s - self._ahead_s - self._clock.now())

    def made(self, num_frames: int) -> None:
        """Note that so many frames have been made."""
        now_s = self._clock.now()
        begin_s = now_s if self._content_s is None else max(self._content_s, now_s)
        self._content_s = begin_s + num_frames / self._fps
