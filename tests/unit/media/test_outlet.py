"""Live outputs on simulated time: rates, failures, stalls; no thread and no waiting."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import SinkError
from streamgen.media.outlet import (
    FIRST_RETRY_S,
    LONGEST_RETRY_S,
    LiveOutlet,
    OutputStats,
    Pace,
    SinkPlan,
)
from streamgen.media.pacing import ConstantRate, Pacer
from streamgen.media.sink import FrameSink, SinkClosed
from streamgen.metrics.export import Metrics
from streamgen.types import Frame

CHUNK = 4
CONTENT_FPS = 16.0


class RecordingSink:
    """Notes when which frame came; does what it is told to before."""

    def __init__(self, clock: SimulatedClock, before: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._before = before
        self.shown: list[tuple[float, Frame]] = []
        self.ends: list[str] = []

    def write(self, frame: Frame) -> None:
        self._before()
        self.shown.append((self._clock.now(), frame))

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


class Rig:
    """An outlet whose owner always wakes in time."""

    def __init__(
        self, open_sink: Callable[[], FrameSink], clock: SimulatedClock, *,
        fps: float = 30.0, reopens: bool = True, opened: bool = True,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.stats = OutputStats(Metrics(clock), clock, output="x")
        self.pacer = Pacer(clock, content_fps=CONTENT_FPS, max_waiting=32)
        plan = SinkPlan("x", open_sink, Pace.CONSTANT, reopens=reopens)
        timing = ConstantRate(self.pacer, clock, fps=fps)
        self.outlet = LiveOutlet(plan, open_sink() if opened else None, timing, clock, self.stats)
        self._num_chunks = 0

    def run(self, until_s: float, chunks_s: list[float]) -> None:
        """Let chunks come at `chunks_s`, and the outlet do what is due, until `until_s`."""
        coming = list(chunks_s)
        while True:
            due_s = self.outlet.due_s
            if coming and (due_s is None or coming[0] <= due_s):
                self.clock.advance_to(coming.pop(0))
                self.outlet.add(self._chunk())
            elif due_s is not None and due_s <= until_s:
                self.clock.advance_to(due_s)
                self.outlet.turn()
            else:
                self.clock.advance_to(until_s)
                return

    def _chunk(self) -> list[Frame]:
        first = self._num_chunks * CHUNK
        self._num_chunks += 1
        pictures = [np.full((2, 2, 3), (first + n) % 256, np.uint8) for n in range(CHUNK)]
        now_s = self.clock.now()
        return [Frame(pixels, (first + n) / 16, now_s - 0.1) for n, pixels in enumerate(pictures)]


def even(until_s: float, every_s: float = 0.25) -> list[float]:
    return [every_s * n for n in range(int(until_s / every_s))]


def test_a_constant_rate_holds_through_a_stall_of_the_source_and_one_of_the_sink() -> None:
    """Ten seconds without frames are ten seconds of the last one; a sink that takes ten seconds
    for one frame goes on in the present: what it slept through is not made up for."""
    clock = SimulatedClock()

    def before() -> None:
        if 60.0 <= clock.now() < 60.04:
            clock.sleep(10.0)

    sink = RecordingSink(clock, before)
    rig = Rig(lambda: sink, clock)
    rig.run(100.0, [time_s for time_s in even(100.0) if not 20.0 < time_s < 30.0])
    times_s = [time_s for time_s, _ in sink.shown]
    gaps_s = [later - earlier for earlier, later in pairwise(times_s)]
    assert sorted(gaps_s)[-1] == pytest.approx(10.0, abs=1 / 30)
    assert sorted(gaps_s)[-2] == pytest.approx(1 / 30, abs=1e-6)
    assert sum(gap < 1 / 30 - 1e-6 for gap in gaps_s) <= 1  # back into the grid after the stall
    held = {frame.pixels[0, 0, 0] for time_s, frame in sink.shown if 21.0 < time_s < 30.0}
    assert len(held) == 1
    assert rig.stats.repeated.value > 10 * 30 * 0.9
    assert rig.stats.age_s.percentiles().count == rig.stats.written.value


def test_frames_that_were_never_shown_are_counted_and_no_others() -> None:
    clock = SimulatedClock()
    sink = RecordingSink(clock)
    rig = Rig(lambda: sink, clock)
    rig.run(30.0, even(30.0))
    new = {id(frame.pixels) for _, frame in sink.shown}
    assert rig.stats.written.value == len(new)
    assert rig.stats.written.value + rig.stats.lost.value + rig.pacer.num_waiting == 30 * CHUNK * 4
    assert rig.stats.lost.value <= 2


def test_a_sink_that_dies_is_opened_again_ever_more_slowly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Dead for a minute: attempts after .5, 1, 2, 4, 8, 15, 15 s; one warning."""
    clock = SimulatedClock()
    attempts_s: list[float] = []
    sinks: list[RecordingSink] = []

    def is_dead() -> bool:
        return 20.0 <= clock.now() < 80.0

    def die() -> None:
        if is_dead():
            raise SinkError("x: Connection refused")

    def opened() -> FrameSink:
        attempts_s.append(clock.now())
        die()
        sinks.append(RecordingSink(clock, die))
        return sinks[-1]

    rig = Rig(opened, clock)
    with caplog.at_level(logging.WARNING):
        rig.run(120.0, even(120.0))
    waits_s = [later - earlier for earlier, later in pairwise([20.0, *attempts_s[1:]])]
    expected_s = [min(LONGEST_RETRY_S, FIRST_RETRY_S * 2**n) for n in range(len(waits_s))]
    assert waits_s == pytest.approx(expected_s, abs=0.1)
    away_s = attempts_s[-1] - 20.0
    assert [record.message for record in caplog.records] == [
        "x: Connection refused; trying again",
        f"x is back after {away_s:.1f} s",
    ]
    assert len(sinks) == 2
    assert sinks[0].ends == ["abort"]
    assert sinks[1].shown[0][0] - attempts_s[-1] < 1 / 30
    assert (rig.stats.failures.value, rig.stats.reopened.value) == (1, 1)
    assert rig.stats.lost.value > 50 * CONTENT_FPS
    rig.outlet.close()
    assert sinks[1].ends == ["close"]


def test_a_sink_that_held_for_long_is_tried_again_soon() -> None:
    clock = SimulatedClock()
    attempts_s: list[float] = []
    failing_s = [20.0, 50.0, 80.0]

    def die() -> None:
        if failing_s and clock.now() >= failing_s[0]:
            failing_s.pop(0)
            raise SinkError("gone")

    def opened() -> FrameSink:
        attempts_s.append(clock.now())
        return RecordingSink(clock, die)

    Rig(opened, clock).run(100.0, even(100.0))
    assert attempts_s[1:] == pytest.approx([20.5, 50.5, 80.5], abs=0.05)


def test_an_output_that_waits_for_its_reader_is_opened_by_its_own_turn() -> None:
    clock = SimulatedClock()
    sink = RecordingSink(clock)
    rig = Rig(lambda: sink, clock, opened=False)
    assert rig.outlet.due_s == 0.0
    rig.run(1.0, even(1.0))
    assert len(sink.shown) == pytest.approx(30, abs=1)
    assert rig.stats.reopened.value == 0


def test_a_failure_that_is_an_end_and_a_reader_that_has_gone_reach_the_owner() -> None:
    clock = SimulatedClock()
    for error in (SinkError("broken"), SinkClosed("gone")):

        def fail(error: Exception = error) -> None:
            raise error

        sink = RecordingSink(clock, fail)
        rig = Rig(lambda sink=sink: sink, clock, reopens=False)
        with pytest.raises(type(error)):
            rig.run(clock.now() + 1.0, [clock.now()])
        rig.outlet.abort()
        assert sink.ends == ["abort"]


def test_a_sink_that_cannot_be_opened_later_and_does_not_reopen_fails() -> None:
    clock = SimulatedClock()

    def opened() -> FrameSink:
        raise SinkError("nothing there")

    rig = Rig(opened, clock, reopens=False, opened=False)
    with pytest.raises(SinkError, match="nothing there"):
        rig.outlet.turn()


def test_a_sink_that_opens_with_nobody_there_is_not_back() -> None:
    """It takes pictures for half a second each time: one outage, and ever longer waits."""
    clock = SimulatedClock()
    opened_s: list[float] = []

    def opened() -> FrameSink:
        opened_s.append(clock.now())
        return RecordingSink(clock, die)

    def die() -> None:
        if clock.now() > 20.0 and clock.now() - max(opened_s[-1], 20.0) > 0.5:
            raise SinkError("nobody is there")

    rig = Rig(opened, clock)
    rig.run(100.0, even(100.0))
    assert (rig.stats.failures.value, rig.stats.reopened.value) == (1, 0)
    gaps_s = [later - earlier for earlier, later in pairwise(opened_s[1:])]
    assert gaps_s[-1] > 10 * gaps_s[0] > 10.0


@pytest.mark.parametrize("made_fps", [5.0, 16.0])
def test_the_age_of_frames_does_not_grow_in_ten_minutes(made_fps: float) -> None:
    """Chunks of 4 as a slow model makes them, 30 frames/s to show: what is shown in the last minute
    is no older than in the second one, and younger than two chunks."""
    clock = SimulatedClock()
    sink = RecordingSink(clock)
    rig = Rig(lambda: sink, clock)
    rig.run(600.0, even(600.0, CHUNK / made_fps))

    def oldest_s(begin_s: float, end_s: float) -> float:
        seen: set[int] = set()
        ages_s: list[float] = []
        for time_s, frame in sink.shown:
            if begin_s <= time_s < end_s and id(frame.pixels) not in seen:
                ages_s.append(time_s - frame.captured_s)
            seen.add(id(frame.pixels))
        return max(ages_s)

    assert oldest_s(540.0, 600.0) <= oldest_s(60.0, 120.0) + 1 / 30
    assert oldest_s(540.0, 600.0) < 0.1 + 2 * CHUNK / made_fps
