from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, lists

from streamgen.clock import SimulatedClock
from streamgen.media.pacing import CORRECTION, DEAD_BAND_S, ConstantRate, Pacer
from streamgen.types import Frame

PIXELS = np.zeros((1, 1, 3), np.uint8)
TEN_MINUTES_S = 600.0
FRAMES_A_CHUNK = 4


def chunk(number: int) -> list[Frame]:
    first = number * FRAMES_A_CHUNK
    return [Frame(PIXELS, float(first + i), 0.0) for i in range(FRAMES_A_CHUNK)]


Shown = list[tuple[float, int]]
"""When each frame was shown, and its number."""


def play(
    arrivals_s: Sequence[float], *, content_fps: float, lateness: Callable[[], float] = lambda: 0.0
) -> tuple[Shown, Pacer]:
    """Let chunks arrive at `arrivals_s`; the pacer's owner wakes `lateness` after each due_s."""
    clock = SimulatedClock()
    pacer = Pacer(clock, content_fps=content_fps, max_waiting=4 * FRAMES_A_CHUNK)
    shown: Shown = []

    def show_until(end_s: float) -> None:
        while (due_s := pacer.due_s) is not None and due_s <= end_s:
            clock.advance_to(min(end_s, due_s + lateness()))
            frame = pacer.take()
            if frame is not None:
                shown.append((clock.now(), int(frame.pts_s)))

    for number, arrival_s in enumerate(arrivals_s):
        show_until(arrival_s)
        clock.advance_to(arrival_s)
        pacer.add(chunk(number))
    show_until(clock.now() + 5.0)
    return shown, pacer


def gaps_s(shown: Shown) -> list[float]:
    return [later - earlier for (earlier, _), (later, _) in pairwise(shown)]


def delays_s(shown: Shown, arrivals_s: Sequence[float]) -> list[float]:
    """How long the first frame of each chunk waited."""
    return [
        time_s - arrivals_s[number // FRAMES_A_CHUNK]
        for time_s, number in shown
        if number % FRAMES_A_CHUNK == 0
    ]


def test_ten_minutes_of_even_chunks_are_shown_evenly_and_without_drift() -> None:
    """Chunks of 4 each 0.4 s at a content rate of 16: the shown rate is 10, and stays."""
    arrivals_s = [0.4 * number for number in range(int(TEN_MINUTES_S / 0.4))]
    shown, pacer = play(arrivals_s, content_fps=16)
    assert [number for _, number in shown] == list(range(len(arrivals_s) * FRAMES_A_CHUNK))
    settled = gaps_s(shown)[100:]
    assert max(abs(gap - 0.1) for gap in settled) < 0.1 * CORRECTION + 1e-9
    delays = delays_s(shown, arrivals_s)
    assert max(delays[25:]) <= 2 * DEAD_BAND_S
    assert pacer.num_dropped == 0
    assert pacer.num_stalls <= 5


def test_ten_minutes_of_jittery_chunks_are_shown_almost_evenly() -> None:
    """Intervals of 0.4 s with 25 % jitter: once settled, 1 frame in 100 is late, none early."""
    chance = random.Random(7)
    arrivals_s = [0.4 * n + 0.1 * chance.random() for n in range(int(TEN_MINUTES_S / 0.4))]
    shown, pacer = play(arrivals_s, content_fps=16)
    settled = gaps_s(shown)[400:]
    assert min(settled) > 0.1 * 0.85
    assert sum(gap > 0.1 * 1.2 for gap in settled) < len(settled) / 100
    assert max(delays_s(shown, arrivals_s)[100:]) < 0.3
    assert pacer.num_dropped == 0


def test_a_stall_of_five_seconds_is_followed_by_the_normal_rate_and_no_burst() -> None:
    even = [0.4 * number for number in range(100)]
    arrivals_s = even + [even[-1] + 5.0 + 0.4 * number for number in range(100)]
    shown, pacer = play(arrivals_s, content_fps=16)
    after = [time_s for time_s, _ in shown if time_s >= arrivals_s[100]]
    assert min(b - a for a, b in pairwise(after)) > 0.1 * 0.9
    assert after[-1] - after[0] == pytest.approx(0.1 * (len(after) - 1), rel=0.05)
    assert pacer.num_dropped == 0


def test_production_faster_than_the_content_is_not_shown_in_fast_motion() -> None:
    """Chunks of 4 each 0.1 s would be 40 frames/s of a film made for 16; the oldest give way."""
    shown, pacer = play([0.1 * number for number in range(600)], content_fps=16)
    assert min(gaps_s(shown)) >= (1 - CORRECTION) / 16 - 1e-9
    assert pacer.num_dropped > 0
    assert pacer.num_waiting == 0


def test_the_rate_follows_a_production_that_becomes_slower() -> None:
    quick = [0.4 * number for number in range(100)]
    arrivals_s = quick + [quick[-1] + 0.8 * number for number in range(1, 101)]
    _, pacer = play(arrivals_s, content_fps=16)
    assert pacer.fps == pytest.approx(5.0, rel=0.06)


def test_a_delay_from_a_slow_time_is_gone_within_seconds_and_without_a_hurry() -> None:
    """Three chunks that took 5 s each, then 10 frames/s of content made for 16: what piles up
    while the rate is underestimated is shown at 16, and the delay is less than two chunks."""
    quick = [0.4 * number for number in range(100)]
    slow = [quick[-1] + 5.0 * number for number in range(1, 4)]
    arrivals_s = quick + slow + [slow[-1] + 0.4 * number for number in range(1, 101)]
    shown, pacer = play(arrivals_s, content_fps=16)
    assert min(gaps_s(shown)) >= (1 - CORRECTION) / 16 - 1e-9
    delays = delays_s(shown, arrivals_s)
    assert max(delays[-55:]) < 2 * 0.4
    assert pacer.num_waiting == 0


def test_wake_ups_within_the_dead_band_do_not_move_the_schedule() -> None:
    """An owner that wakes up to 9 ms late each time shows as many frames as a punctual one."""
    chance = random.Random(3)
    arrivals_s = [0.4 * number for number in range(1500)]
    shown, pacer = play(arrivals_s, content_fps=16, lateness=lambda: 0.009 * chance.random())
    assert len(shown) == len(arrivals_s) * FRAMES_A_CHUNK
    assert max(delays_s(shown, arrivals_s)[50:]) <= 3 * DEAD_BAND_S
    assert pacer.num_stalls <= 5


@settings(deadline=None)
@given(intervals_s=lists(floats(0.0, 3.0), max_size=60), content_fps=integers(1, 60))
def test_frames_keep_their_order_and_never_come_faster_than_the_content(
    intervals_s: list[float], content_fps: int
) -> None:
    """Whatever the arrivals: each frame is shown once or dropped, in order, never in a burst.

    A frame within the dead-band late is shown at once, and the next one at its own time.
    """
    arrivals_s = [sum(intervals_s[: n + 1]) for n in range(len(intervals_s))]
    shown, pacer = play(arrivals_s, content_fps=content_fps)
    numbers = [number for _, number in shown]
    assert numbers == sorted(set(numbers))
    total = len(arrivals_s) * FRAMES_A_CHUNK
    assert len(numbers) + pacer.num_dropped + pacer.num_waiting == total
    shortest_s = (1 - CORRECTION) / content_fps - DEAD_BAND_S - 1e-9
    assert all(gap >= shortest_s for gap in gaps_s(shown))


def test_nothing_is_due_before_a_frame_came() -> None:
    clock = SimulatedClock()
    pacer = Pacer(clock, content_fps=16, max_waiting=8)
    pacer.add([])
    assert pacer.due_s is None
    assert pacer.take() is None
    constant = ConstantRate(pacer, clock, fps=30)
    assert constant.due_s is None
    assert constant.take() is None


def test_a_constant_rate_repeats_the_last_frame_through_ten_minutes_of_underruns() -> None:
    """10 frames/s of content and a stop of 60 s in the middle become 30 frames/s without a gap."""
    arrivals_s = [0.4 * n for n in range(1500) if not 200.0 < 0.4 * n < 260.0]
    clock = SimulatedClock()
    pacer = Pacer(clock, content_fps=16, max_waiting=16)
    constant = ConstantRate(pacer, clock, fps=30)
    shown: list[tuple[float, Frame]] = []
    waiting = [(time_s, chunk(number)) for number, time_s in enumerate(arrivals_s)]
    while waiting or clock.now() < TEN_MINUTES_S:
        due_s = constant.due_s
        if waiting and (due_s is None or waiting[0][0] <= due_s):
            time_s, frames = waiting.pop(0)
            clock.advance_to(time_s)
            pacer.add(frames)
            continue
        assert due_s is not None
        clock.advance_to(due_s)
        frame = constant.take()
        assert frame is not None
        shown.append((clock.now(), frame))
    times_s = [time_s for time_s, _ in shown]
    start_s = times_s[0]
    assert times_s == pytest.approx([start_s + n / 30 for n in range(len(times_s))], abs=1e-6)
    assert [frame.pts_s for _, frame in shown] == [n / 30 for n in range(len(shown))]
    num_new = len(arrivals_s) * FRAMES_A_CHUNK - pacer.num_waiting - pacer.num_dropped
    assert len(shown) == num_new - pacer.num_skipped + constant.num_repeated


def test_a_constant_rate_leaves_out_the_periods_that_its_owner_slept_through() -> None:
    clock = SimulatedClock()
    pacer = Pacer(clock, content_fps=16, max_waiting=16)
    constant = ConstantRate(pacer, clock, fps=10)
    pacer.add(chunk(0))
    assert constant.take() is not None
    clock.advance_to(1.05)
    late = constant.take()
    assert late is not None
    assert late.pts_s == 1.0
    assert constant.take() is None
    assert constant.due_s == pytest.approx(1.1)


def test_a_constant_rate_keeps_the_rate_of_content_that_is_no_divisor_of_it() -> None:
    """16 frames/s shown at 30: frames are looked for up to 33 ms late; none is lost to it."""
    clock = SimulatedClock()
    pacer = Pacer(clock, content_fps=16, max_waiting=16)
    constant = ConstantRate(pacer, clock, fps=30)
    num_chunks = 1000
    for number in range(num_chunks):
        arrival_s = 0.25 * number
        while (due_s := constant.due_s) is not None and due_s < arrival_s:
            clock.advance_to(due_s)
            assert constant.take() is not None
        clock.advance_to(arrival_s)
        pacer.add(chunk(number))
    num_periods = int((num_chunks - 1) * 0.25 * 30)
    assert num_periods - constant.num_repeated == pytest.approx(16 * 0.25 * num_chunks, rel=0.01)
    assert pacer.num_dropped == 0


def test_a_constant_rate_below_the_content_skips_to_the_newest_due_frame() -> None:
    clock = SimulatedClock()
    pacer = Pacer(clock, content_fps=20, max_waiting=16)
    constant = ConstantRate(pacer, clock, fps=10)
    pacer.add(chunk(0))
    first = constant.take()
    clock.advance_to(0.1)
    second = constant.take()
    assert first is not None
    assert second is not None
    assert pacer.num_skipped == 1


def test_rates_and_bounds_must_be_positive() -> None:
    clock = SimulatedClock()
    with pytest.raises(ValueError, match="must be > 0"):
        Pacer(clock, content_fps=0, max_waiting=1)
    with pytest.raises(ValueError, match="must be > 0"):
        Pacer(clock, content_fps=16, max_waiting=0)
    with pytest.raises(ValueError, match="more than 0"):
        ConstantRate(Pacer(clock, content_fps=16, max_waiting=1), clock, fps=0)
