"""SloAware: which rows share the next forward so that every chunk meets its deadline. Pure.

Batching everything is cheapest, but a forward of many rows is long, and whoever rides in it waits
for all. So the rows are taken in the order of how little slack their chunks have, and one more row
is let in only while the forward stays short enough for those already chosen.
"""

from __future__ import annotations

import math
from enum import IntEnum

from streamgen.scheduling.latency import Costs, LatencyFit, LatencyModel
from streamgen.scheduling.plan import Candidate, Drop, Pass, Plan, SessionView, View

STARVED_S = 0.5  # a chunk so much too late goes before others again, for it blocks its stream


class _Turn(IntEnum):
    """Who goes first; within a turn, least slack first."""

    URGENT = 0
    """Misses its deadline if it is not in this forward."""
    FIRST = 1
    """A first chunk goes ahead of steady ones as far as their slack allows."""
    STEADY = 2
    LOST = 3
    """Cannot be in time any more, so it delays nobody who can."""


_Entry = tuple[_Turn, float, float, tuple[int, int, int], float, Candidate]
"""A candidate in its order: turn, slack, since when, who; then the longest forward with which it is
still in time, if all that follow are as long."""


class SloAware:
    """Least slack first, in forwards as long as the deadlines of their rows allow.

    Deadlines are `Candidate.due_s`; sessions without a service level ride along where there is
    room. Of the clips that wait at a live input, those that cannot be in time are dropped, all but
    the newest: a stream under overload shows the present, seldom, and not the past.
    """

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        costs, now_s = latency.costs(), view.now_s
        fixed_s, per_unit_s = costs.denoise.fixed_s, costs.denoise.per_unit_s
        drops: list[Drop] = []
        found: list[tuple[Candidate, float]] = []  # and the seconds left for its passes
        rows, work, shapes = 0, 0.0, set[float]()
        shortest_s = math.inf
        for session in view.sessions:
            num_stale = stale_clips(session, now_s, costs)
            if num_stale:
                drops.append(Drop(session.session, num_stale))
            codec_s = _codec_s(session, costs)
            for candidate in session.candidates:
                due_s = candidate.due_s
                if num_stale and candidate is session.candidates[-1] and candidate.where.step == 0:
                    due_s = session.waiting_due_s[num_stale]  # the clip that will start instead
                left_s = due_s - now_s - codec_s
                found.append((candidate, left_s))
                shortest_s = min(shortest_s, left_s / candidate.passes_left)
                rows += candidate.num_rows
                work += candidate.num_rows * candidate.num_frames
                shapes.add(candidate.num_frames)
        if rows <= view.max_rows and len(shapes) * fixed_s + per_unit_s * work <= shortest_s:
            chosen = [candidate.where for candidate, _ in found]  # nobody minds anybody
        else:
            whole_s = fixed_s + per_unit_s * work
            entries = [_entry(one, left_s, whole_s, costs.denoise) for one, left_s in found]
            chosen = _fill(sorted(entries), view.max_rows, costs.denoise)
        return Plan(tuple(sorted(chosen, key=_who)), tuple(drops))


def stale_clips(session: SessionView, now_s: float, costs: Costs) -> int:
    """How many of the oldest waiting clips cannot be in time; the newest never counts."""
    due_s = session.waiting_due_s
    if len(due_s) < 2:
        return 0
    passes = max((c.passes_left for c in session.candidates), default=session.num_steps)
    alone_s = passes * (costs.denoise.fixed_s + costs.denoise.per_unit_s)
    ready_s = now_s + alone_s + _codec_s(session, costs)
    return sum(1 for due in due_s[:-1] if due < ready_s)


def _codec_s(session: SessionView, costs: Costs) -> float:
    decode = costs.decode
    return decode.fixed_s + decode.per_unit_s * session.clip_frames if session.clip_frames else 0.0


def _who(where: Pass) -> tuple[int, int, int]:
    return where.session, where.chunk, where.step


def _entry(candidate: Candidate, left_s: float, whole_s: float, forward: LatencyFit) -> _Entry:
    passes, where = candidate.passes_left, candidate.where
    units = candidate.num_rows * candidate.num_frames
    slack_s = left_s - passes * (forward.fixed_s + forward.per_unit_s * units)
    turn = _turn(slack_s, whole_s, is_first=where.chunk == 0)
    return turn, slack_s, candidate.ready_s, _who(where), left_s / passes, candidate


def _turn(slack_s: float, whole_s: float, *, is_first: bool) -> _Turn:
    if slack_s < -STARVED_S:
        return _Turn.URGENT
    if slack_s < 0:
        return _Turn.LOST
    if slack_s < whole_s:
        return _Turn.URGENT
    return _Turn.FIRST if is_first else _Turn.STEADY


def _fill(entries: list[_Entry], max_rows: int, forward: LatencyFit) -> list[Pass]:
    chosen: list[Pass] = []
    shapes: set[float] = set()
    rows, work, limit_s = 0, 0.0, math.inf
    for *_, own_limit_s, candidate in entries:
        if rows + candidate.num_rows > max_rows:
            continue
        more = candidate.num_rows * candidate.num_frames
        calls = len(shapes) + (candidate.num_frames not in shapes)
        length_s = calls * forward.fixed_s + forward.per_unit_s * (work + more)
        if chosen and length_s > limit_s:
            continue
        chosen.append(candidate.where)
        shapes.add(candidate.num_frames)
        rows, work = rows + candidate.num_rows, work + more
        if own_limit_s >= length_s:  # else this forward is too long for it anyway
            limit_s = min(limit_s, own_limit_s)
    return chosen
