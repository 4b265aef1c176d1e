"""What the engine foresees of its live inputs is what its mirror foresees."""

from __future__ import annotations

import pytest

from bench_slo import NoPictures, Regular
from streamgen.cache.rows import RowPool
from streamgen.clock import SimulatedClock
from streamgen.engine.engine import Engine
from streamgen.engine.simulated import SimulatedExecutor
from streamgen.engine.terms import ServiceTerms
from streamgen.metrics.export import Metrics
from streamgen.scheduling.capacity import Offer
from streamgen.scheduling.lane import Demand, Lane
from streamgen.scheduling.latency import Costs, KnownLatency, LatencyFit, LatencyModel
from streamgen.scheduling.mirror import MirrorEngine
from streamgen.scheduling.plan import Pass, Plan, View
from streamgen.scheduling.service import Quality, ServiceLevel
from streamgen.scheduling.slo import SloAware
from streamgen.types import SessionId
from tests.small_engine import small_recipe, text

COSTS = Costs(LatencyFit(0.020, 0.030))
TIGHT, PATIENT = (0.4, 0.47), (0.99, 3.0)  # seconds between clips, and from capture until due


class Noted:
    """SloAware with known costs; keeps what it planned."""

    def __init__(self) -> None:
        self.plans: list[tuple[float, tuple[Pass, ...]]] = []
        self.num_waits = 0

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        plan = SloAware().plan(view, KnownLatency(COSTS))
        can_run = any(session.candidates for session in view.sessions)
        self.num_waits += can_run and not plan.passes
        if plan.passes:
            self.plans.append((view.now_s, plan.passes))
        return plan


def offer(kind: tuple[float, float], steps: int) -> Offer:
    period_s, latency_s = kind
    service = ServiceLevel(fps=4 / period_s, first_frame_s=3.0, latency_s=latency_s)
    return Offer(service, (Demand(period_s, period_s, steps, 0, 1, 1, steps, 0, steps),))


def by_engine(kinds: list[tuple[tuple[float, float], int]], seconds: float) -> Noted:
    clock, policy = SimulatedClock(), Noted()
    num_rows = sum(steps for _, steps in kinds)
    engine = Engine(
        SimulatedExecutor(
            clock, (lambda b: COSTS.denoise.fixed_s + COSTS.denoise.per_unit_s * len(b.rows),)
        ),
        policy,
        rows=RowPool(num_rows),
        max_rows=num_rows,
        clock=clock,
        metrics=Metrics(clock),
    )
    prompt = engine.add_prompt(text(0))
    sessions = [
        engine.open(
            small_recipe(steps=steps),
            make_starter=lambda kind=kind: Regular(clock, kind[0]),
            decoder=NoPictures(),
            seed=0,
            prompt=prompt,
            negative_prompt=prompt,
            max_waiting_clips=4,
            terms=ServiceTerms(
                offer(kind, steps).service, (Quality(steps),), offer(kind, steps), 1.0
            ),
        )
        for kind, steps in kinds
    ]
    while clock.now() < seconds:
        engine.tick()
        for session in sessions:
            session.clips.clear()
    return policy


def by_mirror(kinds: list[tuple[tuple[float, float], int]], seconds: float) -> Noted:
    policy = Noted()
    mirror = MirrorEngine(policy, costs=lambda _: COSTS, max_rows=100)
    for number, (kind, steps) in enumerate(kinds):
        told = offer(kind, steps)
        mirror.add(Lane(SessionId(number), told.service, told.rungs, opened_s=0.0))
    mirror.run(seconds)
    return policy


def named(noted: Noted) -> list[list[tuple[int, int, int]]]:
    """Batches, sessions counted from the first one that ran."""
    first = noted.plans[0][1][0].session
    return [[(w.session - first, w.chunk, w.step) for w in passes] for _, passes in noted.plans]


@pytest.mark.parametrize("patient_steps", [1, 2])
def test_engine_and_mirror_plan_the_same_where_they_look_ahead(patient_steps: int) -> None:
    """The engine looks each millisecond, so its times may be one later; order and rows agree."""
    kinds = [(TIGHT, 1), (PATIENT, patient_steps)]
    real, mirrored = by_engine(kinds, 20.0), by_mirror(kinds, 20.0)
    assert len(real.plans) > 40
    assert named(real)[:40] == named(mirrored)[:40]
    assert mirrored.num_waits > 0
