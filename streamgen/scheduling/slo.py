"""SloAware: which rows share the next forward so that every chunk meets its deadline. Pure.

Batching everything is cheapest, but a tick of many rows is long, and it cannot be broken off: who
rides in it waits for all, and so does who comes meanwhile. So chunks are taken in the order of how
little slack they have, and one more is let in only while those before it can still be in time -
those that wait, and the clips that live inputs will have next. If nothing can begin without making
such a clip late, and all that waits can bear it, the engine waits for that clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import itemgetter

from streamgen.scheduling.latency import Costs, LatencyModel
from streamgen.scheduling.plan import Candidate, Drop, Pass, Plan, SessionView, View

STARVED_S = 0.5  # a chunk so much too late goes before others again, for it blocks its stream
CAUTION = 1.05  # what is let in beside others may take so much longer than is expected of it
ROUNDING_S = 1e-9


class _Turn(IntEnum):
    """Who goes first; within a turn, least slack first."""

    URGENT = 0
    """Misses its deadline if it is not in this forward."""
    FIRST = 1
    """A first chunk goes ahead of steady ones as far as their slack allows."""
    STEADY = 2
    LOST = 3
    """Cannot be in time any more, so it delays nobody who can."""


@dataclass(slots=True)
class _Job:
    """A chunk and what is left to do of it; one that cannot run now only keeps its place."""

    candidate: Candidate
    can_run: bool
    left_s: float
    """Until it is due."""
    work_s: float
    """Of all its passes and its codec, beside the fixed seconds of forwards."""
    cost_s: float
    """What it adds to this tick."""
    slack_s: float
    """How much later than now it could begin, alone."""


_Place = tuple[_Turn, float, float, tuple[int, int, int]]
"""Turn, slack, since when it could run, who."""


class SloAware:
    """Least slack first, in ticks as long as the deadlines of those who go first allow.

    Deadlines are `Candidate.due_s`; sessions without a service level ride along where there is
    room. Of the clips that wait at a live input, those that cannot be in time are dropped, all but
    the newest: a stream under overload shows the present, seldom, and not the past.
    """

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        costs, now_s = latency.costs(), view.now_s
        fixed_s = costs.denoise.fixed_s
        drops: list[Drop] = []
        jobs: list[_Job] = []
        for session in view.sessions:
            if session.candidates or session.waiting_due_s:
                num_stale = stale_clips(session, now_s, costs)
                if num_stale:
                    drops.append(Drop(session.session, num_stale))
                jobs.extend(_jobs(session, num_stale, now_s, costs))
        runnable = [job for job in jobs if job.can_run]
        if not runnable:
            return Plan((), tuple(drops))
        whole_s = fixed_s + sum(job.cost_s for job in runnable)
        enough_s = CAUTION * whole_s + sum(job.work_s for job in jobs)
        jobs.extend(_coming(view, costs, enough_s))
        if _all_bear(jobs, runnable, view.max_rows, enough_s):
            chosen = [job.candidate.where for job in runnable]
        else:
            ordered = sorted(((_place(job, whole_s), job) for job in jobs), key=itemgetter(0))
            chosen = _fill(ordered, view.max_rows, fixed_s)
            if not chosen and not _can_wait(jobs, now_s, whole_s):
                chosen = [next(job.candidate.where for _, job in ordered if job.can_run)]
        return Plan(tuple(sorted(chosen, key=_who)), tuple(drops))


def stale_clips(session: SessionView, now_s: float, costs: Costs) -> int:
    """How many of the oldest waiting clips cannot be in time; the newest never counts."""
    due_s = session.waiting_due_s
    if len(due_s) < 2:
        return 0
    passes = max((c.passes_left for c in session.candidates), default=session.num_steps)
    alone_s = passes * (costs.denoise.fixed_s + costs.denoise.per_unit_s)
    ready_s = now_s + alone_s + _codec_s(session, costs)[1]
    return sum(1 for due in due_s[:-1] if due < ready_s)


def _codec_s(session: SessionView, costs: Costs) -> tuple[float, float]:
    """Seconds of encoding and of decoding one clip of a session."""
    frames = session.clip_frames
    if not frames:
        return 0.0, 0.0
    encode, decode = costs.encode, costs.decode
    is_live = session.expected is not None
    encode_s = encode.fixed_s + encode.per_unit_s * frames if is_live else 0.0
    return encode_s, decode.fixed_s + decode.per_unit_s * frames


def _jobs(session: SessionView, num_stale: int, now_s: float, costs: Costs) -> list[_Job]:
    """Chunks that may run, and clips that wait for their turn."""
    waiting_due_s = session.waiting_due_s[num_stale:]
    jobs: list[_Job] = []
    for candidate in session.candidates:
        due_s = candidate.due_s
        if candidate.where.step == 0 and waiting_due_s:
            due_s, waiting_due_s = waiting_due_s[0], waiting_due_s[1:]
        jobs.append(_job(candidate, due_s, session, now_s, costs, can_run=True))
    if session.expected is not None:
        for due_s in waiting_due_s:
            jobs.append(_job(session.expected, due_s, session, now_s, costs, can_run=False))
    return jobs


def _job(
    candidate: Candidate,
    due_s: float,
    session: SessionView,
    now_s: float,
    costs: Costs,
    *,
    can_run: bool,
) -> _Job:
    passes = candidate.passes_left
    pass_s = candidate.num_rows * candidate.num_frames * costs.denoise.per_unit_s
    encode_s, decode_s = _codec_s(session, costs)
    if candidate.where.step > 0:
        encode_s = 0.0
    cost_s = pass_s + encode_s + (decode_s if passes == 1 else 0.0) if can_run else 0.0
    left_s, work_s = due_s - now_s, encode_s + passes * pass_s + decode_s
    slack_s = left_s - work_s - passes * costs.denoise.fixed_s
    return _Job(candidate, can_run, left_s, work_s, cost_s, slack_s)


def _coming(view: View, costs: Costs, enough_s: float) -> Iterator[_Job]:
    """The next clips of live inputs, but those that bear whatever this tick may hold."""
    now_s = view.now_s
    for session in view.sessions:
        expected = session.expected
        if expected is not None and expected.ready_s < now_s + enough_s:
            job = _job(expected, expected.due_s, session, now_s, costs, can_run=False)
            if job.slack_s < enough_s:
                yield job


def _all_bear(
    jobs: Sequence[_Job], runnable: Sequence[_Job], max_rows: int, enough_s: float
) -> bool:
    """Whether all may ride: nobody would be late even behind all others."""
    if min(job.slack_s for job in jobs) < enough_s:
        return False
    shape = runnable[0].candidate.num_frames
    is_even = all(job.candidate.num_frames == shape for job in runnable)
    return is_even and sum(job.candidate.num_rows for job in runnable) <= max_rows


def _place(job: _Job, whole_s: float) -> _Place:
    slack_s, candidate = job.slack_s, job.candidate
    turn = _Turn.STEADY
    if slack_s < 0:
        turn = _Turn.URGENT if slack_s < -STARVED_S else _Turn.LOST
    elif slack_s < whole_s:
        turn = _Turn.URGENT
    elif candidate.where.chunk == 0 and job.can_run:
        turn = _Turn.FIRST
    return turn, slack_s, candidate.ready_s, _who(candidate.where)


def _who(where: Pass) -> tuple[int, int, int]:
    return where.session, where.chunk, where.step


def _fill(ordered: Sequence[tuple[_Place, _Job]], max_rows: int, fixed_s: float) -> list[Pass]:
    """Take jobs in their order while those before can bear what each adds to the tick.

    If all were served in this order, a job would be ready after the work of all up to itself, in
    as many forwards as the one of them with the most passes needs; what it has left beyond that is
    what may be put before it. A job that would be late even so bounds nobody.
    """
    chosen: list[Pass] = []
    shapes: set[float] = set()
    rows, passes = 0, 0
    work_s, room_s = 0.0, math.inf
    for (turn, *_), job in ordered:
        candidate = job.candidate
        work_s += job.work_s
        passes = max(passes, candidate.passes_left)
        if job.can_run and rows + candidate.num_rows <= max_rows:
            is_new = candidate.num_frames not in shapes
            cost_s = job.cost_s + (fixed_s if is_new else 0.0)
            if CAUTION * cost_s <= room_s + ROUNDING_S:
                chosen.append(candidate.where)
                shapes.add(candidate.num_frames)
                rows += candidate.num_rows
                room_s -= CAUTION * cost_s
        own_s = job.left_s - work_s - passes * fixed_s
        if turn is not _Turn.LOST and own_s >= 0:
            room_s = min(room_s, own_s)
    return chosen


def _can_wait(jobs: Sequence[_Job], now_s: float, whole_s: float) -> bool:
    """Whether the next clip comes so soon that all who could run bear waiting for it."""
    coming_s = [one.candidate.ready_s - now_s for one in jobs if not one.can_run]
    wait_s = min((seconds for seconds in coming_s if seconds > 0), default=math.inf)
    return all(job.slack_s - wait_s > whole_s for job in jobs if job.can_run)
