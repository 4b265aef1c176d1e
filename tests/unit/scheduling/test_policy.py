from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import builds, composite, floats, integers, lists

from streamgen.scheduling.latency import LatencyModel
from streamgen.scheduling.plan import Candidate, Pass, Plan, SessionView, View
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from streamgen.types import SessionId

A, B, C = SessionId(0), SessionId(1), SessionId(2)


def may_run(
    session: SessionId, chunk: int, step: int, *, since: float = 0.0, rows: int = 1
) -> Candidate:
    return Candidate(Pass(session, chunk, step), ready_s=since, num_rows=rows)


def of(session: SessionId, *candidates: Candidate, in_flight: int) -> SessionView:
    return SessionView(session, 4, in_flight, 0, candidates)


def seen(*sessions: SessionView, max_rows: int = 100) -> View:
    return View(now_s=10.0, max_rows=max_rows, sessions=sessions)


def passes(*triples: tuple[SessionId, int, int]) -> tuple[Pass, ...]:
    return tuple(Pass(*triple) for triple in triples)


THREE_CHUNKS = of(
    A,
    may_run(A, 4, 2, since=3),
    may_run(A, 5, 1, since=3),
    may_run(A, 6, 0, since=1),
    in_flight=2,
)
STREAM_BATCH = {
    "nobody is there": (seen(), ()),
    "nothing may run": (seen(of(A, in_flight=1)), ()),
    "a first chunk starts": (seen(of(A, may_run(A, 0, 0), in_flight=0)), passes((A, 0, 0))),
    "chunks at different steps share a forward": (
        seen(THREE_CHUNKS),
        passes((A, 4, 2), (A, 5, 1), (A, 6, 0)),
    ),
    "sessions share a forward": (
        seen(of(B, may_run(B, 0, 1), in_flight=1), THREE_CHUNKS),
        passes((A, 4, 2), (A, 5, 1), (A, 6, 0), (B, 0, 1)),
    ),
    "who has waited longest goes first": (
        seen(
            of(A, may_run(A, 1, 1, since=5), in_flight=1),
            of(B, may_run(B, 7, 2, since=2), in_flight=1),
            of(C, may_run(C, 3, 0, since=4), in_flight=0),
            max_rows=2,
        ),
        passes((B, 7, 2), (C, 3, 0)),
    ),
    "of two who waited as long, who has had less goes": (
        seen(
            of(B, may_run(B, 0, 1), in_flight=1), of(A, may_run(A, 9, 3), in_flight=1), max_rows=1
        ),
        passes((B, 0, 1)),
    ),
    "a guided pass takes two rows": (
        seen(
            of(A, may_run(A, 1, 1, since=1, rows=2), in_flight=1),
            of(B, may_run(B, 1, 1, since=2, rows=2), in_flight=1),
            max_rows=3,
        ),
        passes((A, 1, 1)),
    ),
    "a pass of one row fills what a wider one leaves": (
        seen(
            of(A, may_run(A, 1, 1, since=1, rows=2), in_flight=1),
            of(B, may_run(B, 1, 1, since=2, rows=2), in_flight=1),
            of(C, may_run(C, 1, 1, since=3), in_flight=1),
            max_rows=3,
        ),
        passes((A, 1, 1), (C, 1, 1)),
    ),
}
SEQUENTIAL = {
    "nobody is there": (seen(), ()),
    "nothing may run": (seen(of(A, in_flight=1)), ()),
    "a first chunk starts": (seen(of(A, may_run(A, 0, 0), in_flight=0)), passes((A, 0, 0))),
    "a chunk under way goes on alone": (seen(THREE_CHUNKS), passes((A, 4, 2))),
    "no chunk starts while one is computing": (
        seen(of(A, may_run(A, 6, 0), in_flight=1)),
        (),
    ),
    "sessions still share a forward": (
        seen(of(B, may_run(B, 0, 0), in_flight=0), THREE_CHUNKS),
        passes((A, 4, 2), (B, 0, 0)),
    ),
    "who has waited longest goes first": (
        seen(
            of(A, may_run(A, 1, 1, since=5), in_flight=1),
            of(B, may_run(B, 7, 0, since=2), in_flight=0),
            max_rows=1,
        ),
        passes((B, 7, 0)),
    ),
}


@pytest.mark.parametrize(("view", "expected"), STREAM_BATCH.values(), ids=STREAM_BATCH)
def test_stream_batch_runs_everything_that_fits(view: View, expected: tuple[Pass, ...]) -> None:
    assert StreamBatch().plan(view, LatencyModel()) == Plan(expected)


@pytest.mark.parametrize(("view", "expected"), SEQUENTIAL.values(), ids=SEQUENTIAL)
def test_sequential_keeps_one_chunk_of_a_session_in_flight(
    view: View, expected: tuple[Pass, ...]
) -> None:
    assert Sequential().plan(view, LatencyModel()) == Plan(expected)


@composite
def views(draw) -> View:
    """Any number of sessions with chunks at falling steps, as the engine makes them."""
    sessions = []
    for number in range(draw(integers(0, 4))):
        session = SessionId(number)
        steps = sorted(draw(lists(integers(0, 5), max_size=4, unique=True)), reverse=True)
        candidates = [
            Candidate(Pass(session, 3 + index, step), draw(floats(0, 10)), draw(integers(1, 2)))
            for index, step in enumerate(steps)
        ]
        in_flight = sum(step > 0 for step in steps) + draw(integers(0, 1))
        sessions.append(of(session, *candidates, in_flight=in_flight))
    return seen(*sessions, max_rows=draw(integers(2, 9)))


@given(views(), builds(StreamBatch) | builds(Sequential))
def test_a_plan_is_a_choice_among_candidates_that_fits(view: View, policy: Policy) -> None:
    """Whatever there is to see: no invented or repeated pass, no more rows than fit, and the
    longest waiting candidate of those that the policy admits always runs, so nobody starves."""
    by_pass = {one.where: one for session in view.sessions for one in session.candidates}
    plan = policy.plan(view, LatencyModel())
    assert len(set(plan.passes)) == len(plan.passes)
    chosen = [by_pass[where] for where in plan.passes]
    assert sum(one.num_rows for one in chosen) <= view.max_rows
    assert plan.drops == ()
    if isinstance(policy, StreamBatch) and by_pass:
        longest_s = min(one.ready_s for one in by_pass.values())
        assert any(one.ready_s == longest_s for one in chosen)
    if isinstance(policy, Sequential):
        assert len({where.session for where in plan.passes}) == len(plan.passes)


@given(views(), builds(StreamBatch) | builds(Sequential))
def test_a_plan_depends_on_the_view_alone(view: View, policy: Policy) -> None:
    """Decisions are pure: the same view gives the same plan, in whatever order sessions stand."""
    turned = View(view.now_s, view.max_rows, view.sessions[::-1])
    first = policy.plan(view, LatencyModel())
    assert policy.plan(view, LatencyModel()) == first
    assert policy.plan(turned, LatencyModel()) == first
