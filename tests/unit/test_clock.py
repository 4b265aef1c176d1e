from hypothesis import given
from hypothesis.strategies import floats, lists

from streamgen.clock import MonotonicClock, SimulatedClock

durations_s = floats(min_value=-10, max_value=10)


@given(durations=lists(durations_s))
def test_a_simulated_clock_advances_by_what_was_slept_and_never_goes_back(durations):
    clock = SimulatedClock(start_s=5.0)
    expected_s = 5.0
    for duration_s in durations:
        before_s = clock.now()
        clock.sleep(duration_s)
        expected_s += max(0.0, duration_s)
        assert clock.now() >= before_s
    assert clock.now() == expected_s


@given(times=lists(durations_s, min_size=1))
def test_advancing_to_the_past_leaves_a_simulated_clock_where_it_is(times):
    clock = SimulatedClock()
    for time_s in times:
        clock.advance_to(time_s)
    assert clock.now() == max(0.0, *times)


def test_the_monotonic_clock_returns_at_once_from_a_sleep_of_no_time():
    clock = MonotonicClock()
    before_s = clock.now()
    clock.sleep(0.0)
    clock.sleep(-1000.0)
    assert before_s <= clock.now() < before_s + 1000.0
