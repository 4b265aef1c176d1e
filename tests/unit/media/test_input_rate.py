"""The rate that a live input is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, tuples

from streamgen.media.input_rate import InputRate


def run(rate: InputRate, capacity_fps: float, seconds: int) -> list[int]:
    """Frames dropped in each second by a reader that takes at most `capacity_fps`."""
    drops: list[int] = []
    for _ in range(seconds):
        sent = round(rate.fps)
        taken = min(sent, int(capacity_fps))
        drops.append(sent - taken)
        rate.observe(num_taken=taken, num_dropped=sent - taken, seconds=1.0)
    return drops


@pytest.mark.parametrize("capacity_fps", [4, 8, 12, 25])
def test_it_settles_where_the_reader_keeps_up(capacity_fps: int):
    """After the first second few frames are sent for nothing, and most of the capacity is used."""
    rate = InputRate(highest_fps=30)
    drops = run(rate, capacity_fps, 60)
    assert sum(drops[1:]) <= 0.15 * 60 * capacity_fps
    assert 0.75 * capacity_fps <= rate.fps <= 1.25 * capacity_fps


def test_a_reader_that_keeps_up_is_sent_everything():
    rate = InputRate(highest_fps=30)
    assert run(rate, 40, 10) == [0] * 10
    assert rate.fps == 30


def test_it_finds_back_after_a_slow_time():
    rate = InputRate(highest_fps=30)
    run(rate, 3, 20)
    run(rate, 60, 60)
    assert rate.fps == 30


@given(looks=lists(tuples(integers(0, 100), integers(0, 100), floats(0.01, 100))))
def test_it_stays_within_its_bounds(looks: list[tuple[int, int, float]]):
    rate = InputRate(highest_fps=30, lowest_fps=2)
    for taken, dropped, seconds in looks:
        rate.observe(num_taken=taken, num_dropped=dropped, seconds=seconds)
        assert 2 <= rate.fps <= 30


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no rate lies"):
        InputRate(highest_fps=1, lowest_fps=2)
    with pytest.raises(ValueError, match="nothing happens"):
        InputRate(highest_fps=30).observe(num_taken=1, num_dropped=0, seconds=0)
