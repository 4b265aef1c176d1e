"""One output as time passes: what it shows when, and how it comes back after a failure.

LiveOutlet is stepped by its owner, on an injected Clock: it waits for nothing and knows no threads,
so that ten minutes of failures are a unit test. The thread around it is streamgen.media.writer's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from streamgen.clock import Clock
from streamgen.errors import SinkError
from streamgen.media.pacing import Timing
from streamgen.media.sink import FrameSink
from streamgen.metrics.export import Metrics
from streamgen.types import Frame, Pixels

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.5  # after a failure; doubled by each further one
LONGEST_RETRY_S = 15.0
SETTLED_S = 5.0  # of pictures after which an output counts as back; SRT gives up after three
HEALTHY_S = 10.0  # an output that held for so long begins with FIRST_RETRY_S again


class Pace(Enum):
    """Which frames an output wants, and when."""

    ALL = "all"  # every frame as soon as it is there: files and pipes
    SHOWN = "shown"  # each when it is to be seen: pages and windows
    CONSTANT = "constant"  # one each 1/fps s, the last one again if need be: devices and encoders


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """An output that can be opened, and opened again."""

    name: str  # for people and metrics: never a password or a stream key
    open: Callable[[], FrameSink]  # raises SinkError
    pace: Pace
    fps: float | None = None  # of a constant rate; None: the stream's own
    reopens: bool = False  # whether a failure is perhaps not its end
    waits_for_reader: bool = False  # whether `open` waits for somebody to connect
    check: Callable[[], object] = lambda: None  # raises what of `open` can be known before; makes
    #                                             and changes nothing


class OutputStats:
    """What became of one output's frames, for metrics and for the last line of a run."""

    def __init__(self, metrics: Metrics, clock: Clock, *, output: str) -> None:
        self._clock = clock
        labels = {"output": output}
        self.written = metrics.counter(
            "streamgen_output_frames_total", "Frames handed to an output.", labels
        )
        self.repeated = metrics.counter(
            "streamgen_output_repeated_total", "Frames handed to an output once more.", labels
        )
        self.lost = metrics.counter(
            "streamgen_output_dropped_total", "Frames that an output never showed.", labels
        )
        self._sink_dropped = metrics.counter(
            "streamgen_dropped_total",
            "Pictures given up: at the input, drawn too late, held instead of drawn, not shown.",
            {"cause": "sink_dropped"},
        )
        self.failures = metrics.counter(
            "streamgen_output_failures_total", "Times that an output failed.", labels
        )
        self.reopened = metrics.counter(
            "streamgen_output_reopened_total", "Times that an output came back.", labels
        )
        self.age_s = metrics.summary(
            "streamgen_frame_age_seconds", "Age of frames, from capture to output.", labels
        )

    @property
    def is_notable(self) -> bool:
        """Whether anything but frames going out has happened."""
        return any(metric.value for metric in (self.repeated, self.lost, self.failures))

    def summary(self) -> str:
        """One line for people."""
        seen = self.age_s.percentiles()
        parts = [f"{self.written.value} frames", f"{self.repeated.value} repeated"]
        parts.append(f"{self.lost.value} dropped")
        if self.failures.value:
            parts.append(f"failed {self.failures.value} times, back {self.reopened.value} times")
        if seen.p50 is not None and seen.p99 is not None:
            parts.append(f"frame age {seen.p50:.2f} s (p99 {seen.p99:.2f} s)")
        return ", ".join(parts)

    def count(self, frame: Frame) -> None:
        """A frame has been handed over for the first time, now.

        All frames of a clip are as old as its first one: the age is never too small.
        """
        self.written.add()
        self.age_s.add(max(0.0, self._clock.now() - frame.captured_s))

    def raise_lost_to(self, num_lost: int) -> None:
        """Note how many have been lost in all."""
        more = max(0, num_lost - self.lost.value)
        self.lost.add(more)
        self._sink_dropped.add(more)


class LiveOutlet:
    """Hands frames to one sink when they are due, and opens it anew after it failed.

    Attempts come ever more slowly, from FIRST_RETRY_S to LONGEST_RETRY_S; what is due while there
    is no sink is lost and counted. `turn` lets SinkClosed through: whoever looked has gone; and the
    SinkError of an output that does not reopen.
    """

    def __init__(
        self,
        plan: SinkPlan,
        sink: FrameSink | None,
        timing: Timing,
        clock: Clock,
        stats: OutputStats,
    ) -> None:
        """`sink` is what `plan.open` gave; None: it is opened with the first `turn`."""
        self._plan = plan
        self._sink = sink
        self._timing = timing
        self._clock = clock
        self._stats = stats
        self._newest: Pixels | None = None  # what the sink has seen last
        self._num_unseen = 0  # frames that were due while there was no sink
        self._num_attempts = 0  # in vain, since the sink last held
        self._retry_at_s = clock.now()
        self._opened_s = clock.now()
        self._lost_s: float | None = None

    @property
    def due_s(self) -> float | None:
        """When `turn` will have something to do; None: not before frames are added."""
        due_s = self._timing.due_s
        if self._sink is not None:
            return due_s
        return self._retry_at_s if due_s is None else min(due_s, self._retry_at_s)

    @property
    def has_shown_all(self) -> bool:
        return self._timing.num_waiting == 0

    def add(self, frames: list[Frame]) -> None:
        """Note that frames have come, now."""
        self._timing.add(frames)

    def turn(self, num_lost_before: int = 0) -> None:
        """Do what is due; `num_lost_before` is how many frames never came here."""
        if self._sink is None and self._clock.now() >= self._retry_at_s:
            self._reopen()
        frame = self._timing.take()
        if frame is not None:
            self._show(frame)
        self._stats.raise_lost_to(num_lost_before + self._timing.num_lost + self._num_unseen)

    def close(self) -> None:
        """End the sink. Raises SinkError if it cannot be ended well."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()

    def abort(self) -> None:
        """Let go of the sink; never raises."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()

    def _show(self, frame: Frame) -> None:
        is_new = frame.pixels is not self._newest
        self._newest = frame.pixels
        if self._sink is None:
            self._num_unseen += is_new
            return
        try:
            self._sink.write(frame)
        except SinkError as error:
            self._num_unseen += is_new
            self._lose(error)
            return
        if is_new:
            self._stats.count(frame)
        else:
            self._stats.repeated.add()
        if self._lost_s is not None and self._clock.now() - self._opened_s >= SETTLED_S:
            self._settle(self._opened_s - self._lost_s)

    def _lose(self, error: SinkError) -> None:
        if self._lost_s is None:
            self._stats.failures.add()
        if not self._plan.reopens:
            raise error
        self.abort()
        now_s = self._clock.now()
        if now_s - self._opened_s >= HEALTHY_S:
            self._num_attempts = 0
        if self._lost_s is None:
            self._lost_s = now_s
            logger.warning("%s; trying again", error)
        self._wait_longer(now_s)

    def _reopen(self) -> None:
        try:
            self._sink = self._plan.open()
        except SinkError as error:
            if not self._plan.reopens:
                raise
            logger.info("%s", error)
            self._wait_longer(self._clock.now())
            return
        self._opened_s = self._clock.now()

    def _settle(self, away_s: float) -> None:
        """Some can be opened with nobody at the other end: only pictures show that it is back."""
        self._stats.reopened.add()
        logger.warning("%s is back after %.1f s", self._plan.name, away_s)
        self._lost_s = None

    def _wait_longer(self, now_s: float) -> None:
        wait_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0**self._num_attempts)
        self._num_attempts += 1
        self._retry_at_s = now_s + wait_s
