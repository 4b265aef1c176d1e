from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists

from streamgen.clock import SimulatedClock
from streamgen.media.sources.retiming import RealTimeSource, TimedPicture, resampled
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.types import Frame, PictureSize

PIXELS = np.zeros((1, 1, 3), np.uint8)


@given(gaps_s=lists(floats(0.005, 0.7), min_size=1, max_size=30), fps=integers(1, 60))
def test_resampling_gives_at_each_moment_the_newest_picture_that_has_begun(
    gaps_s: list[float], fps: int
) -> None:
    """The oracle looks through all pictures for each moment; times may be a millisecond late."""
    starts_s = [0.0]
    for gap_s in gaps_s:
        starts_s.append(starts_s[-1] + gap_s)
    end_s = starts_s[-1] + 0.2
    pictures = [TimedPicture(PIXELS.copy(), a, b) for a, b in pairwise([*starts_s, end_s])]
    out = list(resampled(pictures, fps=fps))
    assert [timed.start_s for timed in out] == [k / fps for k in range(len(out))]
    assert out[-1].end_s >= end_s - 0.0011
    for timed in out:
        begun = [p for p in pictures if p.start_s <= timed.start_s + 0.001]
        assert timed.pixels is begun[-1].pixels


def test_resampling_nothing_gives_nothing() -> None:
    assert list(resampled([], fps=10)) == []


def test_real_time_gives_frames_no_earlier_than_their_time() -> None:
    clock = SimulatedClock(start_s=100.0)
    size = PictureSize(2, 2)
    source = RealTimeSource(SyntheticSource(size, fps=10, clock=clock, num_frames=600), clock)
    captured_s: list[float] = []
    while (frame := source.read()) is not None:
        captured_s.append(frame.captured_s)
    source.close()
    assert captured_s == pytest.approx([100.0 + n / 10 for n in range(600)])
    assert source.facts.fps == 10


class _SlowSource(SyntheticSource):
    """Takes `delays_s[index]` for its frame number `index`."""

    def __init__(self, clock: SimulatedClock, delays_s: list[float]) -> None:
        super().__init__(PictureSize(2, 2), fps=10, clock=clock, num_frames=len(delays_s))
        self._slow_clock = clock
        self._delays_s = iter(delays_s)

    def read(self) -> Frame | None:
        self._slow_clock.sleep(next(self._delays_s, 0.0))
        return super().read()


def test_after_a_long_delay_a_real_time_source_does_not_hurry() -> None:
    clock = SimulatedClock()
    source = RealTimeSource(_SlowSource(clock, [0.0, 0.0, 30.0, 0.0, 0.0]), clock)
    captured_s: list[float] = []
    while (frame := source.read()) is not None:
        captured_s.append(frame.captured_s)
    assert captured_s == pytest.approx([0.0, 0.1, 30.1, 30.2, 30.3])
