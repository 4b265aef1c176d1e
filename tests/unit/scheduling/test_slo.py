"""SloAware as a table of views and plans: one latent frame costs 10 ms, a forward 10 ms more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from streamgen.scheduling.latency import Costs, KnownLatency, LatencyFit
from streamgen.scheduling.plan import Candidate, Drop, Pass, SessionView, View
from streamgen.scheduling.slo import SloAware
from streamgen.types import SessionId

A, B, C = SessionId(0), SessionId(1), SessionId(2)
COSTS = KnownLatency(Costs(LatencyFit(0.010, 0.010)))
NOW_S = 10.0


def of(
    session: SessionId, *, in_s: float = math.inf, chunk: int = 5, step: int = 0, left: int = 1
) -> SessionView:
    """A session with one candidate that is due so many seconds from now."""
    where = Pass(session, chunk, step)
    one = Candidate(where, NOW_S, 1, passes_left=left, due_s=NOW_S + in_s)
    return SessionView(session, 4, int(step > 0), 0, (one,))


def chosen(*sessions: SessionView, max_rows: int = 100) -> list[SessionId]:
    plan = SloAware().plan(View(NOW_S, max_rows, sessions), COSTS)
    return [one.session for one in plan.passes]


def test_all_ride_together_where_time_suffices() -> None:
    assert chosen(of(A, in_s=1), of(B, in_s=0.5), of(C)) == [A, B, C]


def test_where_rows_do_not_suffice_least_slack_goes_first() -> None:
    assert chosen(of(A, in_s=1), of(B, in_s=0.5), of(C), max_rows=1) == [B]
    assert chosen(of(A, in_s=0.3, left=4), of(B, in_s=0.3, left=1), max_rows=1) == [A]


def test_a_row_with_time_stays_out_of_a_forward_that_it_would_make_too_long() -> None:
    """B can bear a forward of 25 ms; with A it would last 30."""
    assert chosen(of(A, in_s=1), of(B, in_s=0.025)) == [B]


def test_what_is_too_late_anyway_delays_nobody_who_can_be_in_time() -> None:
    assert chosen(of(A, in_s=-0.1), of(B, in_s=0.025)) == [B]
    assert chosen(of(A, in_s=-0.1)) == [A]


def test_what_has_been_late_for_long_is_not_starved() -> None:
    assert chosen(of(A, in_s=-0.7), of(B, in_s=0.2), max_rows=1) == [A]


def test_a_first_chunk_goes_ahead_of_steady_ones_as_far_as_their_slack_allows() -> None:
    first = of(A, in_s=5, chunk=0)
    assert chosen(first, of(B, in_s=0.5), max_rows=1) == [A]
    assert chosen(first, of(B, in_s=0.035), max_rows=1) == [B]


@pytest.mark.parametrize(
    ("due_in_s", "num_dropped"), [((0.5, 0.7), 0), ((-1, 0.7), 1), ((-2, -1), 1), ((-1,), 0)]
)
def test_stale_clips_are_dropped_but_never_the_newest(
    due_in_s: tuple[float, ...], num_dropped: int
) -> None:
    waiting = tuple(NOW_S + one for one in due_in_s)
    start = Candidate(Pass(A, 5, 0), NOW_S, 1, passes_left=4, due_s=waiting[0])
    view = SessionView(A, 4, 0, len(waiting), (start,), waiting_due_s=waiting)
    plan = SloAware().plan(View(NOW_S, 8, (view,)), COSTS)
    assert plan.drops == ((Drop(A, num_dropped),) if num_dropped else ())
    assert plan.passes == (Pass(A, 5, 0),)


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert chosen() == []


def awaits(session: SessionId, *, ready_in_s: float, due_in_s: float) -> SessionView:
    """A live session with nothing to run, whose next clip is foreseen."""
    where = Pass(session, 6, 0)
    clip = Candidate(where, NOW_S + ready_in_s, 1, due_s=NOW_S + due_in_s)
    return SessionView(session, 4, 0, 0, (), expected=clip)


def test_a_tick_that_would_make_the_next_clip_late_waits_for_it() -> None:
    """B's clip comes in 5 ms, takes 20 and is due in 30, so nothing of 20 ms may begin now."""
    soon = awaits(B, ready_in_s=0.005, due_in_s=0.030)
    assert chosen(of(A, in_s=1), soon) == []
    assert chosen(of(A, in_s=1), awaits(B, ready_in_s=0.005, due_in_s=0.050)) == [A]


def test_who_cannot_bear_waiting_for_a_clip_does_not() -> None:
    soon = awaits(B, ready_in_s=0.005, due_in_s=0.030)
    assert chosen(of(A, in_s=0.035), soon) == [A]


def test_a_clip_that_is_overdue_at_the_input_is_not_waited_for() -> None:
    assert chosen(of(A, in_s=1), awaits(B, ready_in_s=-0.001, due_in_s=0.030)) == [A]


def test_a_row_that_the_next_clip_cannot_bear_stays_out_of_a_forward() -> None:
    """A is urgent and takes 20 ms; C's 10 ms more would make B's clip late."""
    soon = awaits(B, ready_in_s=0.005, due_in_s=0.045)
    assert chosen(of(A, in_s=0.021), of(C, in_s=1), soon) == [A]
    assert chosen(of(A, in_s=0.021), of(C, in_s=1)) == [A]
    assert chosen(of(A, in_s=0.035), of(C, in_s=1)) == [A, C]


def test_the_codec_of_others_counts_as_their_rows_do() -> None:
    """Decoding C's clip takes 20 ms of the tick in which A, due in 45, is to be ready."""
    latency = KnownLatency(Costs(LatencyFit(0.010, 0.010), decode=LatencyFit(0.0, 0.005)))

    def plan(due_in_s: float) -> list[SessionId]:
        sessions = tuple(
            replace(one, clip_frames=frames)
            for one, frames in ((of(A, in_s=due_in_s), 0), (of(C, in_s=1), 4))
        )
        return [one.session for one in SloAware().plan(View(NOW_S, 9, sessions), latency).passes]

    assert plan(0.045) == [A]
    assert plan(0.055) == [A, C]
