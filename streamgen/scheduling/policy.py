"""Policies: from what may run to what runs. No clock, no I/O, no tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from streamgen.scheduling.latency import LatencyModel
from streamgen.scheduling.plan import Candidate, Pass, Plan, View


class Policy(Protocol):
    """Chooses the passes of a tick among the view's candidates, at most `max_rows` rows."""

    def plan(self, view: View, latency: LatencyModel) -> Plan: ...


class StreamBatch:
    """Everything that may run shares the next forward, whoever's and at whatever step it is.

    Chunks of one session at different steps ride in one batch (StreamDiffusion,
    arXiv:2312.12491, sec. 3.1). Where rows do not suffice, who has waited longest goes first.
    """

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        candidates = [one for session in view.sessions for one in session.candidates]
        return Plan(longest_waiting(candidates, view.max_rows))


class Sequential:
    """A session has one chunk in flight: it walks down its whole ladder before the next starts."""

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        candidates = [
            session.candidates[0]
            for session in view.sessions
            if session.candidates
            and (session.candidates[0].where.step > 0 or session.chunks_in_flight == 0)
        ]
        return Plan(longest_waiting(candidates, view.max_rows))


def longest_waiting(candidates: Iterable[Candidate], max_rows: int) -> tuple[Pass, ...]:
    """Those who have waited longest, as many as fit into `max_rows`."""
    chosen: list[Pass] = []
    rows = 0
    for candidate in sorted(candidates, key=_turn):
        if rows + candidate.num_rows <= max_rows:
            chosen.append(candidate.where)
            rows += candidate.num_rows
    return tuple(sorted(chosen))


def _turn(candidate: Candidate) -> tuple[float, int, int, int]:
    """Who has waited longest; of those who came out of one batch together, who has had less."""
    where = candidate.where
    return candidate.ready_s, where.chunk, where.step, where.session
