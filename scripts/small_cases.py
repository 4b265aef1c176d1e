"""Cases so small that the most sessions anybody could serve is known, and what we make of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from exact_admission import Engine, Session, Sort, is_feasible, load
from streamgen.scheduling.baselines import FirstComeFirstServed
from streamgen.scheduling.capacity import ADMIT_MARGIN, MARGIN, Capacity, Offer
from streamgen.scheduling.lane import Demand, Lane
from streamgen.scheduling.latency import Costs, KnownLatency, LatencyFit
from streamgen.scheduling.mirror import MirrorEngine
from streamgen.scheduling.policy import Policy
from streamgen.scheduling.service import ServiceLevel
from streamgen.scheduling.slo import SloAware
from streamgen.types import SessionId

UNIT_S = 0.01
MOST = 5
HYPERPERIODS = 30  # that a policy has to hold out
MANY = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """An engine, and sessions that ask one after the other: sorts take turns."""

    engine: Engine
    sorts: tuple[Sort, ...]
    phases: tuple[int, ...]

    def sessions(self, count: int) -> list[Session]:
        sorts = [self.sorts[place % len(self.sorts)] for place in range(count)]
        return [Session(s, p % s.period) for s, p in zip(sorts, self.phases, strict=False)]

    def most(self, is_good: Callable[[list[Session]], bool | None]) -> int:
        """How many of them can be let in, one after the other, while it stays good."""
        count = 0
        while count < MOST and is_good(self.sessions(count + 1)):
            count += 1
        return count

    def feasible(self) -> int | None:
        """The most for which some schedule misses nothing; None if that is not known, or more
        than MOST."""
        for count in range(1, MOST + 2):
            answer = is_feasible(self.engine, self.sessions(count))
            if answer is None:
                return None
            if not answer:
                return count - 1
        return None


def draw_cases(count: int, *, seed: int = 1) -> Iterator[Case]:
    """Cases in which any one session could be served alone."""
    draw = random.Random(seed)
    for _ in range(count):
        shortest = draw.choice((12, 16, 20))
        sorts: list[Sort] = []
        for _ in range(draw.choice((1, 2, 2))):
            period = shortest * draw.choice((1, 1, 2))
            steps, collect = draw.choice((1, 2)), period * 3 // 4
            slack = draw.choice((period // 2, period, period, 2 * period, 3 * period))
            in_flight = steps if draw.random() < 0.7 else 1
            row = draw.choice((1, 2, 3, 4, 6))
            sorts.append(Sort(period, collect, collect + slack, steps, row, in_flight))
        engine = Engine(draw.choice((0, 1, 2, 4)), draw.choice((0, 1)), draw.choice((0, 1)))
        phases = tuple(draw.randrange(40) for _ in range(MOST + 1))
        if all(is_feasible(engine, [Session(sort, 0)]) for sort in sorts):
            yield Case(engine, tuple(sorts), phases)


def is_served(policy: Policy, engine: Engine, sessions: Sequence[Session]) -> bool:
    """Whether a policy misses nothing in the mirror, from its first clips on."""
    work, hyperperiod = load(engine, sessions)
    if work > hyperperiod:
        return False
    costs = costs_of(engine)
    mirror = MirrorEngine(policy, costs=lambda _: costs, max_rows=MANY, latency=KnownLatency(costs))
    for number, session in enumerate(sessions):
        service, (demand,) = (offer := offer_of(session.sort)).service, offer.rungs
        lane = Lane(SessionId(number), service, (demand,), opened_s=session.phase * UNIT_S)
        mirror.add(lane)
    mirror.run(max(2.0, hyperperiod * UNIT_S) * HYPERPERIODS)
    for session, lane in zip(sessions, mirror.lanes.values(), strict=True):
        report, sort = lane.report, session.sort
        due = (mirror.now_s / UNIT_S - session.phase - sort.latency) // sort.period
        if report.num_dropped or report.num_chunks < due or max(lane.lateness_s) > 1e-6:
            return False
    return True


def costs_of(engine: Engine) -> Costs:
    """An engine's costs in seconds; a unit of work is a row of one unit of time."""
    return Costs(
        LatencyFit(engine.forward * UNIT_S, UNIT_S),
        LatencyFit(0.0, engine.encode * UNIT_S),
        LatencyFit(0.0, engine.decode * UNIT_S),
    )


def offer_of(sort: Sort) -> Offer:
    """A session as capacity sees it."""
    latency_s = sort.latency * UNIT_S
    service = ServiceLevel(
        fps=1 / (sort.period * UNIT_S), first_frame_s=latency_s, latency_s=latency_s + 1e-9
    )
    demand = Demand(
        period_s=sort.period * UNIT_S,
        collect_s=sort.collect * UNIT_S,
        steps=sort.steps,
        context_passes=0,
        rows=sort.row,
        frames=1,
        in_flight=sort.in_flight,
        clip_frames=1,
        cache_rows=sort.steps,
    )
    return Offer(service, (demand,))


def is_admitted(engine: Engine, sessions: Sequence[Session], *, margin: float) -> bool:
    """Whether all fit by rehearsal, whatever their phases, if costs were so much higher."""
    capacity = Capacity(max_rows=MANY, cache_rows=MANY)
    offers = [offer_of(one.sort) for one in sessions]
    return capacity.fits(offers, 0, costs_of(engine).times(margin))


def against_the_feasible(count: int, *, seed: int = 1) -> dict[str, object]:
    """What policies serve and what admission lets in, of the most that any schedule could."""
    counts: dict[str, list[int]] = {}
    feasible: list[int] = []
    num_unknown = 0
    for case in draw_cases(count, seed=seed):
        most = case.feasible()
        if most is None:
            num_unknown += 1
            continue
        feasible.append(most)
        engine = case.engine
        answers: dict[str, Callable[[list[Session]], bool]] = {
            "slo_aware serves": lambda who, e=engine: is_served(SloAware(), e, who),
            "fcfs serves": lambda who, e=engine: is_served(FirstComeFirstServed(), e, who),
            "admitted at the true costs": lambda who, e=engine: is_admitted(e, who, margin=1.0),
            "admitted with the margins": lambda who, e=engine: is_admitted(
                e, who, margin=MARGIN * ADMIT_MARGIN
            ),
        }
        for name, is_good in answers.items():
            counts.setdefault(name, []).append(case.most(is_good))
    told: dict[str, object] = {
        "cases": len(feasible),
        "cases_with_more_than_5_or_too_many_states": num_unknown,
        "sessions_feasible": sum(feasible),
    }
    for name, found in counts.items():
        fewer = Counter(most - one for most, one in zip(feasible, found, strict=True))
        told[name] = {
            "sessions": sum(found),
            "share": round(sum(found) / sum(feasible), 3),
            "cases_by_sessions_fewer": {str(few): fewer[few] for few in sorted(fewer)},
        }
    return told
