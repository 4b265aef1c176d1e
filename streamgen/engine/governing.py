"""The governor of an engine: what sessions need, how they fare, on which rung they go on.

Knows no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from streamgen.engine.meters import ServiceMeters
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.session import Session
from streamgen.errors import CapacityError
from streamgen.scheduling.capacity import Admission, Governor, Offer, Verdict
from streamgen.scheduling.lane import Demand
from streamgen.scheduling.latency import LatencyModel
from streamgen.scheduling.service import CodecKind, PipelineFacts, Quality, ServiceLevel

REVIEW_S = 0.25  # between two looks at the sessions; calling a rung takes effect at its next epoch


def demand_of(recipe: Recipe, quality: Quality, facts: PipelineFacts) -> Demand:
    """What a session of a recipe needs on one rung of its ladder."""
    reduced = recipe.with_steps(quality.num_steps)
    divisor = quality.rate_divisor
    taken = (*reduced.steps(1), *range(reduced.num_steps, reduced.num_passes))
    units = sum(1 + reduced.has_negative(step) for step in taken)
    steps = 1 if reduced.mode is CacheMode.JOINT else len(reduced.steps(1))  # a chunk waits for
    context_passes = reduced.num_passes - reduced.num_steps
    frames = reduced.chunk_frames * units / (steps + context_passes) / quality.picture_divisor**2
    collect_s = (facts.clip_frames * divisor - 1) / facts.fps if facts.takes_video else 0.0
    return Demand(
        period_s=facts.clip_frames * divisor / facts.fps,
        collect_s=collect_s,
        steps=steps,
        context_passes=context_passes,
        rows=1,
        frames=frames,
        in_flight=reduced.rows_in_flight,
        clip_frames=facts.clip_frames,
        cache_rows=reduced.num_cache_rows,
        tiny_codec=quality.codec is CodecKind.TINY,
        skips_still=quality.skips_still,
        units=divisor,
    )


class Desk:
    """Where sessions are admitted, and told on which rung they go on."""

    def __init__(self, governor: Governor, latency: LatencyModel, meters: ServiceMeters) -> None:
        self._governor = governor
        self._latency = latency
        self._meters = meters
        self._reviewed_s: float | None = None
        self._admissions = {
            verdict: meters.metrics.counter(
                "streamgen_admissions_total",
                "Sessions that asked to begin, by what they were told.",
                {"verdict": verdict.value},
            )
            for verdict in Verdict
        }
        self._gone = (0, 0)  # chunks due and missed of sessions that have left

    def admit(self, now_s: float, offer: Offer, sessions: Iterable[Session]) -> Admission:
        """Whether one more session fits; raises CapacityError, with when to try again, if not."""
        others = [one.terms.offer for one in sessions if one.terms.offer is not None]
        admission = self._governor.admit(now_s, offer, others, self._latency.costs())
        self._admissions[admission.verdict].add()
        if admission.verdict is Verdict.REFUSED:
            if admission.retry_s is None:
                raise CapacityError(
                    "this machine cannot keep the service level of even one session; ask for less: "
                    "a longer service.latency_s, a lower rate, fewer steps",
                    retry_in_s=math.inf,
                )
            wait_s = admission.retry_s - now_s
            raise CapacityError(
                f"{len(others)} sessions leave no room for another one in time; "
                f"try again in {wait_s:.0f} s",
                retry_in_s=wait_s,
            )
        return admission

    def predict(self, now_s: float, offer: Offer, sessions: Iterable[Session]) -> Admission:
        """What `admit` would answer, and nothing changes."""
        others = [one.terms.offer for one in sessions if one.terms.offer is not None]
        return self._governor.predict(now_s, offer, others, self._latency.costs())

    def run_out_of_memory(self, now_s: float, sessions: Iterable[Session]) -> bool:
        """All sessions go a rung down, at once; False if they are down already."""
        served = [one for one in sessions if one.terms.offer is not None]
        offers = [one.terms.offer for one in served if one.terms.offer is not None]
        if not self._governor.run_out_of_memory(now_s, offers):
            return False
        self._tell(self._governor.level, served)
        return True

    def review(self, now_s: float, sessions: Iterable[Session]) -> None:
        """Tell sessions on which rung to go on; does nothing until REVIEW_S after the last time."""
        if self._reviewed_s is not None and now_s - self._reviewed_s < REVIEW_S:
            return
        self._reviewed_s = now_s
        served = [one for one in sessions if one.terms.offer is not None]
        due, missed = self._gone
        level = self._governor.review(
            now_s,
            [one.terms.offer for one in served if one.terms.offer is not None],
            self._latency.costs(),
            num_due=due + sum(one.report.num_due for one in served),
            num_missed=missed + sum(one.report.num_missed for one in served),
        )
        self._tell(level, served)

    def _tell(self, level: int, served: Iterable[Session]) -> None:
        self._meters.level.set(level)
        for session in served:
            offer = session.terms.offer
            assert offer is not None
            session.wanted_rung = offer.rung_at(level)

    def left(self, now_s: float, session: Session) -> None:
        """Note that a session has ended."""
        if session.terms.offer is not None:
            self._governor.left(now_s - session.opened_s)
            due, missed = self._gone
            report = session.report
            self._gone = (due + report.num_due, missed + report.num_missed)


def offer_of(
    recipe: Recipe, service: ServiceLevel, ladder: tuple[Quality, ...], facts: PipelineFacts
) -> Offer:
    """What capacity is told of a session."""
    return Offer(service, tuple(demand_of(recipe, quality, facts) for quality in ladder))
