"""A mirror of the engine's loop in host numbers: the same policies, views and order, no model.

For rehearsing a decision before it is made, and for simulating days of many sessions. What the
engine does with tensors is here a number of seconds; a test holds both to the same trace.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import insort
from collections.abc import Callable

from streamgen.scheduling.lane import Chunk, Demand, Lane
from streamgen.scheduling.latency import Costs, LatencyModel
from streamgen.scheduling.plan import Plan, SessionView, View
from streamgen.scheduling.policy import Policy
from streamgen.types import SessionId

EARLY_S = 1e-7  # before the time computed for it, an arrival may count as there, by rounding


class MirrorEngine:
    """Lanes, a policy, and what work costs. Owns its time: `run` carries it on."""

    def __init__(
        self,
        policy: Policy,
        *,
        costs: Callable[[float], Costs],
        max_rows: int,
        latency: LatencyModel | None = None,
        noise: Callable[[], float] | None = None,
        start_s: float = 0.0,
    ) -> None:
        """`costs` by time are the truth; what policies know is `latency`, which learns from it.

        `noise` draws a factor for each piece of work.
        """
        self.policy = policy
        self.lanes: dict[SessionId, Lane] = {}
        """To read; `add`, `remove` and `want` change them."""
        self.now_s = start_s
        self.busy_s = 0.0
        self.latency = latency or LatencyModel()
        self.max_rows = max_rows
        self.num_ticks = 0
        self.num_rows = 0
        self._costs = costs
        self._noise = noise or (lambda: 1.0)
        self._awake: list[Lane] = []  # by their numbers
        self._asleep: list[tuple[float, int, Lane]] = []  # a heap; some have left or woken
        self._resting: dict[SessionId, SessionView] = {}
        """What those who sleep will have next, for policies that look ahead."""
        self._turns = itertools.count()

    def add(self, lane: Lane) -> None:
        """A session begins."""
        self.lanes[lane.session] = lane
        insort(self._awake, lane, key=_number)

    def remove(self, session: SessionId) -> Lane:
        """A session ends."""
        lane = self.lanes.pop(session)
        if lane.is_asleep:
            lane.is_asleep = False
            self._resting.pop(session, None)
        else:
            self._awake.remove(lane)
        return lane

    def want(self, session: SessionId, rung: int) -> None:
        """From its next epoch on a session is to be on a rung."""
        lane = self.lanes[session]
        if rung != lane.wanted_rung:
            lane.wanted_rung = rung
            if lane.is_asleep:
                self._wake(lane)

    def run(self, until_s: float, on_tick: Callable[[], None] | None = None) -> None:
        """Tick until the clock reaches `until_s`; idle time is skipped."""
        while self.now_s < until_s:
            if on_tick is not None:
                on_tick()
            if not self._tick():
                self.now_s = min(until_s, self._next_event_s())

    def _next_event_s(self) -> float:
        events = [lane.next_event_s(self.now_s) for lane in self._awake]
        while self._asleep and not self._asleep[0][-1].is_asleep:
            heapq.heappop(self._asleep)
        if self._asleep:
            events.append(self._asleep[0][0])
        return min(events, default=math.inf)

    def _look(self, now_s: float) -> tuple[SessionView, ...]:
        """Views of all: of those that sleep as they were, after whoever has a reason to woke."""
        while self._asleep and self._asleep[0][0] <= now_s + EARLY_S:
            lane = heapq.heappop(self._asleep)[-1]
            if lane.is_asleep:
                self._wake(lane)
        views: list[SessionView] = []
        awake: list[Lane] = []
        for lane in self._awake:
            if lane.rung != lane.wanted_rung and not lane.chunks:
                lane.go_to_wanted_rung()
            lane.look(now_s)
            view = lane.view(now_s)
            if lane.is_asleep:
                entry = (lane.next_event_s(now_s), next(self._turns), lane)
                heapq.heappush(self._asleep, entry)
                if view.expected is not None:
                    self._resting[lane.session] = view
            else:
                views.append(view)
                awake.append(lane)
        self._awake = awake
        views.extend(self._resting.values())
        return tuple(views)

    def _wake(self, lane: Lane) -> None:
        lane.is_asleep = False
        self._resting.pop(lane.session, None)
        insort(self._awake, lane, key=_number)

    def _tick(self) -> bool:
        now_s = self.now_s
        plan = self.policy.plan(View(now_s, self.max_rows, self._look(now_s)), self.latency)
        for drop in plan.drops:
            self.lanes[drop.session].drop(drop.num_clips)
        if not plan.passes:
            return bool(plan.drops)
        self._run(plan)
        self.busy_s += self.now_s - now_s
        return True

    def _run(self, plan: Plan) -> None:
        costs, latency = self._costs(self.now_s), self.latency
        shapes: set[float] = set()
        work = 0.0
        running: list[tuple[Lane, Chunk]] = []
        for where in plan.passes:
            lane = self.lanes[where.session]
            demand = lane.demand
            if where.chunk == lane.next_chunk:
                if lane.is_live and demand.clip_frames:
                    self.now_s += self._codec(costs, "encode", demand)
                lane.begin(self.now_s)
            running.append((lane, lane.run(where)))
            shapes.add(demand.frames)
            work += demand.rows * demand.frames
        calls = len(shapes)
        fit = costs.denoise
        seconds = (fit.fixed_s * calls + fit.per_unit_s * work) * self._noise()
        self.now_s += seconds
        latency.denoise.observe(work, seconds, calls=calls)
        self.num_ticks += 1
        self.num_rows += len(running)
        done_s = self.now_s
        for lane, chunk in running:
            if chunk.next_step == lane.demand.steps:
                if lane.demand.clip_frames:
                    self.now_s += self._codec(costs, "decode", lane.demand)
                lane.deliver(chunk, self.now_s)
            lane.advance(chunk, done_s)

    def _codec(self, costs: Costs, kind: str, demand: Demand) -> float:
        fit = costs.encode if kind == "encode" else costs.decode
        factor = costs.tiny_codec if demand.tiny_codec else 1.0
        seconds = (fit.fixed_s + fit.per_unit_s * demand.clip_frames) * factor * self._noise()
        model = self.latency.encode if kind == "encode" else self.latency.decode
        model.observe(demand.clip_frames, seconds)
        return seconds


def _number(lane: Lane) -> int:
    return lane.session
