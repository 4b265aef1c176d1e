"""What policies serve and what admission lets in, beside the most that any schedule could serve."""

from __future__ import annotations

import pytest

from exact_admission import Engine, Session, Sort, is_feasible, load
from small_cases import Case, against_the_feasible, draw_cases, is_served
from streamgen.scheduling.baselines import FirstComeFirstServed
from streamgen.scheduling.slo import SloAware

INPUT = Sort(period=10, collect=8, latency=18, steps=1, row=2, in_flight=1)


@pytest.mark.parametrize(("count", "fits"), [(1, True), (4, True), (5, False)])
def test_as_many_rows_fit_into_a_period_as_it_has_time_for(count: int, fits: bool) -> None:
    """A forward of n rows takes 2 + 2 n of ten."""
    assert is_feasible(Engine(2, 0, 0), [Session(INPUT, 0)] * count) is fits


def test_phases_decide_what_is_feasible_at_full_load() -> None:
    """Two forwards of one row each take 2 (4 + 1) of ten, and each is to be ready after five."""
    sort = Sort(period=10, collect=8, latency=13, steps=1, row=1, in_flight=1)
    engine = Engine(4, 0, 0)
    assert is_feasible(engine, [Session(sort, 0), Session(sort, 5)]) is True
    assert is_feasible(engine, [Session(sort, 0), Session(sort, 4)]) is False


def test_chunks_of_one_session_at_two_steps_share_a_forward_if_two_may_be_in_flight() -> None:
    """Two steps in forwards of 4 + 2 a period, which hold one pass of each of two chunks."""
    engine = Engine(4, 0, 0)
    for in_flight, fits in ((2, True), (1, False)):
        sort = Sort(period=8, collect=6, latency=30, steps=2, row=2, in_flight=in_flight)
        assert is_feasible(engine, [Session(sort, 0)]) is fits


WAITING = Case(
    Engine(2, 0, 1),
    (Sort(16, 12, 20, 1, 1, 1), Sort(16, 12, 44, 1, 3, 1)),
    (10, 9),
)


def test_slo_aware_waits_for_a_clip_that_a_forward_would_make_late() -> None:
    """The tight clip comes one unit after the patient one, whose forward would take five."""
    sessions = WAITING.sessions(2)
    assert is_feasible(WAITING.engine, sessions) is True
    assert is_served(SloAware(), WAITING.engine, sessions)
    assert not is_served(FirstComeFirstServed(), WAITING.engine, sessions)


def test_whatever_a_policy_serves_some_schedule_can_serve() -> None:
    """Search and mirror are written apart, so each checks the other."""
    num_served = 0
    for case in draw_cases(25, seed=3):
        for count in (1, 2, 3):
            sessions = case.sessions(count)
            work, hyperperiod = load(case.engine, sessions)
            if is_served(SloAware(), case.engine, sessions):
                num_served += 1
                assert work <= hyperperiod
                assert is_feasible(case.engine, sessions) is not False
    assert num_served > 20


@pytest.mark.slow
def test_nearly_all_that_any_schedule_could_serve_is_served_and_let_in() -> None:
    told = against_the_feasible(40, seed=2)
    assert isinstance(told["cases"], int)
    assert told["cases"] > 20
    shares = {name: one["share"] for name, one in told.items() if isinstance(one, dict)}
    assert shares["slo_aware serves"] >= 0.95
    assert shares["slo_aware serves"] >= shares["fcfs serves"]
    assert shares["admitted at the true costs"] >= 0.9
