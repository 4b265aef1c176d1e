"""What others do, to compare SloAware with: built from the public descriptions, not copied.

The fourth one, one stream a GPU, is a limit of one session and any of these policies.
"""

from __future__ import annotations

from streamgen.scheduling.latency import LatencyModel
from streamgen.scheduling.plan import Candidate, Plan, SessionView, View
from streamgen.scheduling.policy import longest_waiting

THRESHOLD_S = 0.5  # waiting time at which StreamDiffusionV2's demo turns batching off
DECREASE = 0.5  # factor of AdditiveIncrease after a deadline was missed


class FirstComeFirstServed:
    """Chunks in the order in which they came, as many as fit into a forward; no deadlines."""

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        return Plan(longest_waiting(_all(view), view.max_rows))


class ThresholdRule:
    """The published "SLO-aware scheduler" of one stream (StreamDiffusionV2 c5a0f20, demo/).

    A session whose oldest work has waited THRESHOLD_S or longer walks down its ladder one chunk at
    a time; below that, all its chunks share the forward.
    """

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        candidates: list[Candidate] = []
        for session in view.sessions:
            waited_s = max((view.now_s - c.ready_s for c in session.candidates), default=0.0)
            batched = session.candidates
            if waited_s >= THRESHOLD_S:
                batched = _sequential(session)
            candidates.extend(batched)
        return Plan(longest_waiting(candidates, view.max_rows))


class AdditiveIncrease:
    """Rows of a forward grow by one a tick, and are halved when something is too late.

    Additive increase, multiplicative decrease of a depth, as congestion control has it (Chiu and
    Jain 1989). Keeps that depth from tick to tick, so it is no pure function.
    """

    def __init__(self) -> None:
        self._depth = 1.0

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        candidates = _all(view)
        is_late = any(candidate.due_s < view.now_s for candidate in candidates)
        widest = max((candidate.num_rows for candidate in candidates), default=1)
        depth = self._depth * DECREASE if is_late else self._depth + 1
        self._depth = min(max(depth, 1.0), float(view.max_rows))
        rows = max(int(self._depth), widest)
        return Plan(longest_waiting(candidates, min(rows, view.max_rows)))


def _all(view: View) -> list[Candidate]:
    return [one for session in view.sessions for one in session.candidates]


def _sequential(session: SessionView) -> tuple[Candidate, ...]:
    first = session.candidates[0]
    return (first,) if first.where.step > 0 or session.chunks_in_flight == 0 else ()
