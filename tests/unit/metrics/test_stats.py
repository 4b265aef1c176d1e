"""Counters, percentiles and rates against the plain definitions, and under threads."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, tuples

from streamgen.clock import SimulatedClock
from streamgen.metrics.stats import RELATIVE_ERROR, Counter, Gauge, RateMeter, Summary

values = floats(min_value=1e-8, max_value=1e8)


def test_a_counter_loses_nothing_between_threads():
    counter = Counter()

    def count() -> None:
        for _ in range(2_000):
            counter.add()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(count)
    assert counter.value == 16_000


def test_a_counter_refuses_to_shrink():
    with pytest.raises(ValueError, match="only grows"):
        Counter().add(-1)


def test_a_gauge_is_what_it_was_last_set_to():
    gauge = Gauge()
    gauge.set(3)
    gauge.set(-1.5)
    assert gauge.value == -1.5


@given(seen=lists(values, min_size=1, max_size=300))
def test_percentiles_are_within_one_per_cent_of_the_exact_ones(seen: list[float]):
    summary = Summary()
    for value in seen:
        summary.add(value)
    shown = summary.percentiles()
    ranked = sorted(seen)
    for estimate, share in ((shown.p50, 0.50), (shown.p95, 0.95), (shown.p99, 0.99)):
        exact = ranked[math.floor(share * (len(seen) - 1))]
        assert estimate == pytest.approx(exact, rel=RELATIVE_ERROR * 1.0001)
    assert (shown.count, shown.lowest, shown.highest) == (len(seen), ranked[0], ranked[-1])
    assert shown.total == pytest.approx(sum(seen))


def test_percentiles_of_nothing_are_none_and_of_zeros_zero():
    summary = Summary()
    assert (summary.percentiles().count, summary.percentiles().p50) == (0, None)
    summary.add(0.0)
    summary.add(0.0)
    summary.add(8.0)
    assert summary.percentiles().p50 == 0.0
    assert summary.percentiles().highest == 8.0


def test_memory_of_a_summary_is_bounded_over_all_magnitudes():
    summary = Summary()
    for exponent in range(-3_000, 3_000):
        summary.add(10.0 ** (exponent / 10))
    assert len(summary._buckets) <= 2_073


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_summary_refuses_what_has_no_place_in_it(value: float):
    with pytest.raises(ValueError, match="finite values from 0 up"):
        Summary().add(value)


@given(fps=integers(1, 200), seconds=integers(3, 30))
def test_a_steady_rate_is_measured_to_one_event_and_one_bucket(fps: int, seconds: int):
    clock = SimulatedClock(start_s=123.4)
    meter = RateMeter(clock, window_s=2.0, num_buckets=20)
    for _ in range(fps * seconds):
        clock.sleep(1 / fps)
        meter.add()
    assert meter.per_second() == pytest.approx(fps, abs=1 / 1.9 + 1e-6)


@given(waits=lists(tuples(floats(0, 5), integers(1, 9)), max_size=60))
def test_a_rate_counts_what_lies_in_the_window_and_nothing_older(waits: list[tuple[float, int]]):
    clock = SimulatedClock()
    meter = RateMeter(clock, window_s=4.0, num_buckets=4)
    events: list[tuple[float, int]] = []
    for wait_s, count in waits:
        clock.sleep(wait_s)
        meter.add(count)
        events.append((clock.now(), count))
        oldest_s = max(0, math.floor(clock.now()) - 3)
        covered_s = clock.now() - oldest_s
        expected = sum(n for time_s, n in events if time_s >= oldest_s)
        assert meter.per_second() == pytest.approx(expected / covered_s if covered_s else 0.0)
        assert len(meter._buckets) <= 4


def test_a_rate_falls_to_zero_when_events_stop():
    clock = SimulatedClock()
    meter = RateMeter(clock)
    assert meter.per_second() == 0.0
    clock.sleep(1.0)
    meter.add(30)
    assert meter.per_second() == 30.0
    clock.sleep(60.0)
    assert meter.per_second() == 0.0


def test_a_rate_without_a_window_is_refused():
    with pytest.raises(ValueError, match="no rate over"):
        RateMeter(SimulatedClock(), window_s=0.0)
