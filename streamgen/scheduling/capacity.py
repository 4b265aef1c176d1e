"""What fits on one engine: admission, and one level of quality chosen for all sessions together.

Sessions that choose their quality each for itself oscillate, so there is one level: a number of
rungs that everybody is down. Whether a set of sessions fits is rehearsed in the mirror, under the
policy that will run them; so waiting for the forward that is under way is counted as it happens.
Knows no clock: the time is an argument.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from streamgen.scheduling.lane import Demand, Lane
from streamgen.scheduling.latency import Costs, KnownLatency, LatencyFit
from streamgen.scheduling.mirror import MirrorEngine
from streamgen.scheduling.service import ServiceLevel
from streamgen.scheduling.slo import SloAware
from streamgen.types import SessionId

MARGIN = 1.04  # costs in a rehearsal are so much above what the model says
ADMIT_MARGIN = 1.05  # beside that, before somebody new is let in
UP_MARGIN = 1.12  # beside that, before a level is taken back
UP_HOLD_S = 10.0  # how long the level above must have fitted
MAX_UP_HOLD_S = 160.0  # after ways up that had to be taken back
MISS_WINDOW_S = 2.0  # in which missed deadlines speak against the model
MISS_SHARE = 0.05  # of all chunks in that window
PESSIMISM_STEP, MAX_PESSIMISM = 1.1, 3.0
TRUST_AFTER_S = 30.0  # without misses, after which one step of pessimism is forgotten
REHEARSED_PERIODS = 8  # of the slowest session
MAX_REHEARSED_CHUNKS = 600
WARM_UP_CHUNKS = 2  # of each session, while all begin at once
SAME_COSTS = 0.025  # share by which costs may differ and still count as those of the last look
NUM_REMEMBERED = 512
DEFAULT_STAY_S = 60.0  # of a session, before one has left
GOLDEN = (math.sqrt(5) - 1) / 2  # spreads phases evenly, however many there are


@dataclass(frozen=True, slots=True)
class Offer:
    """A session as capacity sees it: its service level, and what each rung costs, best first."""

    service: ServiceLevel
    rungs: tuple[Demand, ...]

    def rung_at(self, level: int) -> int:
        """Its rung when everybody is `level` rungs down; a heavier session goes down later."""
        return min(len(self.rungs) - 1, int(level / self.service.weight))

    @property
    def lowest_level(self) -> int:
        return math.ceil((len(self.rungs) - 1) * self.service.weight)


class Verdict(StrEnum):
    """What admission says."""

    FULL = "full"
    LOWER = "lower"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a session may begin, and how."""

    verdict: Verdict
    level: int
    """The level of all sessions if it begins."""
    rung: int
    """Where it begins on its own ladder."""
    retry_s: float | None
    """When to try again, on the engine's clock; None: never, it would not fit alone."""


class Capacity:
    """Rehearses sets of sessions; remembers what came of it."""

    def __init__(self, *, max_rows: int, cache_rows: int) -> None:
        self._max_rows = max_rows
        self._cache_rows = cache_rows
        self._known: OrderedDict[object, bool] = OrderedDict()

    def fits(self, offers: Sequence[Offer], level: int, costs: Costs) -> bool:
        """Whether every chunk of these sessions would be in time at a level."""
        demands = [(one.service, one.rungs[one.rung_at(level)]) for one in offers]
        if sum(demand.cache_rows for _, demand in demands) > self._cache_rows:
            return False
        demands.sort(key=lambda one: (one[1].period_s, one[1].steps, repr(one)))
        key = (tuple(demands), costs)
        if key not in self._known:
            self._known[key] = self._rehearse(demands, costs)
            if len(self._known) > NUM_REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def best_level(self, offers: Sequence[Offer], costs: Costs, *, least: int = 0) -> int | None:
        """The lowest level from `least` on at which all fit; None if there is none."""
        lowest = max((offer.lowest_level for offer in offers), default=0)
        return next(
            (level for level in range(least, lowest + 1) if self.fits(offers, level, costs)), None
        )

    def _rehearse(self, demands: list[tuple[ServiceLevel, Demand]], costs: Costs) -> bool:
        if utilisation([demand for _, demand in demands], costs) > 1:
            return False
        return all(self._is_in_time(demands, costs, spread) for spread in (GOLDEN, 0.0))

    def _is_in_time(
        self, demands: list[tuple[ServiceLevel, Demand]], costs: Costs, spread: float
    ) -> bool:
        engine = MirrorEngine(
            SloAware(), costs=lambda _: costs, max_rows=self._max_rows, latency=KnownLatency(costs)
        )
        for index, (service, demand) in enumerate(demands):
            phase_s = demand.period_s * (index * spread % 1)
            session = SessionId(index)
            engine.add(Lane(session, service, (demand,), opened_s=phase_s))
        longest_s = max(demand.period_s for _, demand in demands)
        chunks_a_second = sum(1 / demand.period_s for _, demand in demands)
        horizon_s = REHEARSED_PERIODS * longest_s
        horizon_s = max(min(horizon_s, MAX_REHEARSED_CHUNKS / chunks_a_second), 4 * longest_s)

        def has_missed() -> bool:
            return any(
                lane.report.num_dropped
                or any(late > 1e-6 for late in lane.lateness_s[WARM_UP_CHUNKS:])
                for lane in engine.lanes.values()
            )

        while engine.now_s < horizon_s:
            engine.run(engine.now_s + longest_s)
            if has_missed():
                return False
        return all(
            len(lane.lateness_s) > WARM_UP_CHUNKS or lane.demand.period_s * 3 > horizon_s
            for lane in engine.lanes.values()
        )


def utilisation(demands: Sequence[Demand], costs: Costs) -> float:
    """Share of time that the work of these sessions takes at least; above 1 it cannot be done.

    A forward's fixed seconds count as often as the most demanding session needs a forward of its
    own: once a pass where a session has one chunk in flight, else once a chunk.
    """
    busy = 0.0
    forwards_a_second = 0.0
    for demand in demands:
        passes = demand.steps + demand.context_passes
        busy += passes * demand.rows * demand.frames * costs.denoise.per_unit_s / demand.period_s
        busy += codec_s(demand, costs) / demand.period_s
        each = passes if demand.in_flight == 1 else 1
        forwards_a_second = max(forwards_a_second, each / demand.period_s)
    return busy + forwards_a_second * costs.denoise.fixed_s


def codec_s(demand: Demand, costs: Costs) -> float:
    """Seconds of encoding and decoding a chunk."""
    fits = (costs.encode, costs.decode) if demand.collect_s else (costs.decode,)
    seconds = sum(fit.fixed_s + fit.per_unit_s * demand.clip_frames for fit in fits)
    return seconds * (costs.tiny_codec if demand.tiny_codec else 1.0)


class Governor:
    """Keeps the level of one engine's sessions: down at once, up slowly; and admits new ones."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self.level = 0
        self.pessimism = 1.0
        self._changed_s = -math.inf
        self._raised_s = -math.inf
        self._fits_above_since_s: float | None = None
        self._up_hold_s = UP_HOLD_S
        self._history: deque[tuple[float, int, int]] = deque()
        self._trusted_s = 0.0
        self._mean_stay_s = DEFAULT_STAY_S
        self._costs = Costs(LatencyFit(0.0, 0.0))

    def admit(self, now_s: float, offer: Offer, others: Sequence[Offer], costs: Costs) -> Admission:
        """Let one more session in if it fits beside the others; all go to the level told."""
        answer = self.predict(now_s, offer, others, costs)
        if answer.level != self.level:
            self._change(now_s, answer.level)
        return answer

    def predict(
        self, now_s: float, offer: Offer, others: Sequence[Offer], costs: Costs
    ) -> Admission:
        """What `admit` would say, without letting anybody in: for a router that asks around."""
        safe = self._steady(costs).times(MARGIN * ADMIT_MARGIN * self.pessimism)
        level = self._capacity.best_level((*others, offer), safe, least=self.level)
        if level is None:
            alone = self._capacity.best_level((offer,), safe)
            wait_s = max(1.0, self._mean_stay_s / max(1, len(others)))
            retry_s = None if alone is None and not others else now_s + wait_s
            return Admission(Verdict.REFUSED, self.level, 0, retry_s)
        rung = offer.rung_at(level)
        return Admission(Verdict.LOWER if rung else Verdict.FULL, level, rung, None)

    def left(self, stay_s: float) -> None:
        """Note how long a session stayed, for those who ask when to come again."""
        self._mean_stay_s += 0.2 * (stay_s - self._mean_stay_s)

    def run_out_of_memory(self, now_s: float, offers: Sequence[Offer]) -> bool:
        """Go a level down, for the device had no memory for a forward; False if there is none.

        The way back up is then as slow as after one that had to be taken back.
        """
        lowest = max((offer.lowest_level for offer in offers), default=0)
        if self.level >= lowest:
            return False
        self._up_hold_s = min(2 * self._up_hold_s, MAX_UP_HOLD_S)
        self._raised_s = now_s
        self._change(now_s, self.level + 1)
        return True

    def review(
        self, now_s: float, offers: Sequence[Offer], costs: Costs, *, num_due: int, num_missed: int
    ) -> int:
        """The level from now on. `num_due` and `num_missed` count all chunks since the start."""
        self._listen(now_s, num_due, num_missed)
        if not offers:
            return self.level
        lowest = max(offer.lowest_level for offer in offers)
        safe = self._steady(costs).times(MARGIN * self.pessimism)
        if self.level > lowest:
            self._change(now_s, lowest)
        if self.level < lowest and not self._capacity.fits(offers, self.level, safe):
            level = self._capacity.best_level(offers, safe, least=self.level + 1)
            if now_s - self._raised_s < 3 * UP_HOLD_S:
                self._up_hold_s = min(2 * self._up_hold_s, MAX_UP_HOLD_S)
            self._change(now_s, lowest if level is None else level)
        elif self.level > 0:
            self._consider_up(now_s, offers, safe)
        return self.level

    def _steady(self, costs: Costs) -> Costs:
        """The costs of the last look while these hardly differ, so that it is remembered."""
        before, now = _samples(self._costs), _samples(costs)
        moved = sum(abs(a - b) for a, b in zip(before, now, strict=True))
        if moved > SAME_COSTS * sum(now):  # what costs next to nothing may be as noisy as it likes
            self._costs = costs
        return self._costs

    def _consider_up(self, now_s: float, offers: Sequence[Offer], safe: Costs) -> None:
        if not self._capacity.fits(offers, self.level - 1, safe.times(UP_MARGIN)):
            self._fits_above_since_s = None
            return
        if self._fits_above_since_s is None:
            self._fits_above_since_s = now_s
        since_s = max(self._fits_above_since_s, self._changed_s)
        if now_s - since_s >= self._up_hold_s:
            if now_s - self._raised_s > 3 * self._up_hold_s:
                self._up_hold_s = UP_HOLD_S
            self._change(now_s, self.level - 1)
            self._raised_s = now_s

    def _change(self, now_s: float, level: int) -> None:
        self.level = level
        self._changed_s = now_s
        self._fits_above_since_s = None
        self._history.clear()

    def _listen(self, now_s: float, num_due: int, num_missed: int) -> None:
        """Deadlines that are missed though the model says that all fits make it pessimistic."""
        self._history.append((now_s, num_due, num_missed))
        while now_s - self._history[0][0] > MISS_WINDOW_S:
            self._history.popleft()
        since_s, due, missed = self._history[0]
        due, missed = num_due - due, num_missed - missed
        if now_s - since_s >= 0.5 * MISS_WINDOW_S and missed > max(2, MISS_SHARE * due):
            self.pessimism = min(self.pessimism * PESSIMISM_STEP, MAX_PESSIMISM)
            self._trusted_s = now_s
            self._history.clear()
        elif self.pessimism > 1 and now_s - self._trusted_s > TRUST_AFTER_S:
            self.pessimism = max(1.0, self.pessimism / PESSIMISM_STEP)
            self._trusted_s = now_s


def _samples(costs: Costs) -> tuple[float, ...]:
    """Seconds of small and large pieces of work of every kind."""
    fits = (costs.denoise, costs.encode, costs.decode)
    return tuple(fit.fixed_s + fit.per_unit_s * units for fit in fits for units in (1, 8))
