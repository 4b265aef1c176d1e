"""Run a workload through policies in the mirror: who gets in, who is late, how busy engines are.

A router in front of the engines gives a new session to the one that would serve it best.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamgen.scheduling.baselines import AdditiveIncrease, FirstComeFirstServed, ThresholdRule
from streamgen.scheduling.capacity import Capacity, Governor, Offer, Verdict
from streamgen.scheduling.lane import Lane
from streamgen.scheduling.latency import Costs, LatencyModel
from streamgen.scheduling.mirror import MirrorEngine
from streamgen.scheduling.policy import Policy
from streamgen.scheduling.slo import SloAware
from streamgen.scheduling.workload import Workload
from streamgen.types import SessionId

REVIEW_S = 0.25
MAX_ROWS = 4096  # of a forward; cache rows bound it first


@dataclass(frozen=True, slots=True)
class Scheme:
    """A policy, and who is let in."""

    name: str
    make_policy: Callable[[], Policy]
    has_governor: bool = False
    max_sessions: int = 1 << 30
    """Of one engine, where there is no governor."""


SCHEMES = (
    Scheme("slo_aware", SloAware, has_governor=True),
    Scheme("fcfs", FirstComeFirstServed),
    Scheme("threshold", ThresholdRule),
    Scheme("additive", AdditiveIncrease),
    Scheme("one_a_gpu", FirstComeFirstServed, max_sessions=1),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a workload under a scheme."""

    scheme: str
    num_asked: int
    num_admitted: int
    num_lower: int
    num_refused: int
    num_due: int
    num_missed: int
    num_held: int
    p50_s: float
    """Latency: from capture to hand-over, or of text-to-video how long viewers stalled."""
    p99_s: float
    first_p99_s: float
    utilisation: float
    rung_changes: int
    levels: tuple[tuple[float, int], ...]
    """(time, level) of the first engine, at each change."""
    num_ticks: int

    @property
    def miss_share(self) -> float:
        return self.num_missed / self.num_due if self.num_due else 0.0

    @property
    def num_on_time(self) -> int:
        return self.num_due - self.num_missed


class _Server:
    """One engine with its governor, and its sessions."""

    def __init__(self, scheme: Scheme, workload: Workload, draw: random.Random) -> None:
        profile = workload.profile
        self.scheme = scheme
        self.engine = MirrorEngine(
            scheme.make_policy(),
            costs=lambda now_s: workload.costs(profile.costs, now_s),
            max_rows=MAX_ROWS,
            noise=lambda: max(0.1, draw.gauss(1.0, workload.noise)),
        )
        calibrate(self.engine.latency, workload.costs(profile.costs, 0.0))
        capacity = Capacity(max_rows=MAX_ROWS, cache_rows=profile.cache_rows)
        self.governor = Governor(capacity) if scheme.has_governor else None
        self.offers: dict[SessionId, Offer] = {}
        self.levels: list[tuple[float, int]] = []
        self.cache_rows = profile.cache_rows
        self._reviewed_s = 0.0
        self._gone = [0, 0]

    def admit(self, now_s: float, session: SessionId, offer: Offer) -> tuple[Verdict, int]:
        """What this engine says; the session is not open yet."""
        if self.governor is None:
            rows = sum(lane.demand.cache_rows for lane in self.engine.lanes.values())
            is_full = len(self.engine.lanes) >= self.scheme.max_sessions
            if is_full or rows + offer.rungs[0].cache_rows > self.cache_rows:
                return Verdict.REFUSED, 0
            return Verdict.FULL, 0
        others = list(self.offers.values())
        answer = self.governor.admit(now_s, offer, others, self.engine.latency.costs())
        return answer.verdict, answer.rung

    def open(self, session: SessionId, lane: Lane, offer: Offer) -> None:
        self.engine.add(lane)
        self.offers[session] = offer

    def close(self, session: SessionId) -> Lane:
        del self.offers[session]
        lane = self.engine.remove(session)
        self._gone[0] += lane.report.num_due
        self._gone[1] += lane.report.num_missed
        if self.governor is not None:
            self.governor.left(self.engine.now_s - lane.opened_s)
        return lane

    def run(self, until_s: float) -> None:
        self.engine.run(until_s, self._review if self.governor is not None else None)

    def _review(self) -> None:
        now_s = self.engine.now_s
        if now_s - self._reviewed_s < REVIEW_S or self.governor is None:
            return
        self._reviewed_s = now_s
        lanes = self.engine.lanes
        level = self.governor.review(
            now_s,
            list(self.offers.values()),
            self.engine.latency.costs(),
            num_due=self._gone[0] + sum(lane.report.num_due for lane in lanes.values()),
            num_missed=self._gone[1] + sum(lane.report.num_missed for lane in lanes.values()),
        )
        if not self.levels or self.levels[-1][1] != level:
            self.levels.append((now_s, level))
        for session, offer in self.offers.items():
            self.engine.want(session, offer.rung_at(level))


def calibrate(latency: LatencyModel, costs: Costs) -> None:
    """What a start-up calibration finds out: forwards of one to eight rows, a few clips."""
    for rows in (1, 2, 4, 8) * 3:
        seconds = costs.denoise.fixed_s + costs.denoise.per_unit_s * rows
        latency.denoise.observe(rows, seconds)
    for model, fit in ((latency.encode, costs.encode), (latency.decode, costs.decode)):
        for frames in (4, 8) * 3:
            model.observe(frames, fit.fixed_s + fit.per_unit_s * frames)


def simulate(workload: Workload, scheme: Scheme) -> Outcome:
    """Run a workload to its end. The same workload and scheme always give the same outcome."""
    draw = random.Random(workload.seed + 1)
    servers = [_Server(scheme, workload, draw) for _ in range(workload.gpus)]
    finished: list[Lane] = []
    departures: list[tuple[float, int, int]] = []
    verdicts = dict.fromkeys(Verdict, 0)

    def pass_time(until_s: float) -> None:
        while departures and departures[0][0] <= until_s:
            time_s, number, place = heapq.heappop(departures)
            servers[place].run(time_s)
            finished.append(servers[place].close(SessionId(number)))
        for server in servers:
            server.run(until_s)

    arrivals = workload.arrivals()
    for number, (time_s, leaves_s, kind) in enumerate(arrivals):
        pass_time(time_s)
        session = SessionId(number)
        offer = kind.offer(workload.profile)
        verdict, place, rung = _route(servers, time_s, session, offer)
        verdicts[verdict] += 1
        if verdict is Verdict.REFUSED:
            continue
        opened_s = max(time_s, servers[place].engine.now_s)
        lane = Lane(
            session,
            offer.service,
            offer.rungs,
            opened_s=opened_s,
            rung=rung,
            is_still=_stillness(workload, number),
            viewer_rate=workload.viewer_rate,
        )
        servers[place].open(session, lane, offer)
        if leaves_s < workload.seconds:
            heapq.heappush(departures, (leaves_s, number, place))
    pass_time(workload.seconds)
    finished.extend(lane for server in servers for lane in server.engine.lanes.values())
    return _outcome(workload, scheme, servers, finished, len(arrivals), verdicts)


def _route(
    servers: Sequence[_Server], now_s: float, session: SessionId, offer: Offer
) -> tuple[Verdict, int, int]:
    """The engine with the fewest sessions that takes it at full quality, else the best rung."""
    by_load = sorted(range(len(servers)), key=lambda place: len(servers[place].engine.lanes))
    for place in by_load:
        verdict, rung = servers[place].admit(now_s, session, offer)
        if verdict is not Verdict.REFUSED:
            return verdict, place, rung
    return Verdict.REFUSED, 0, 0


def _stillness(workload: Workload, number: int) -> Callable[[int], bool] | None:
    if not workload.still_share:
        return None
    seed = workload.seed * 1_000_003 + number
    return lambda unit: random.Random(seed * 7919 + unit).random() < workload.still_share


def _outcome(
    workload: Workload,
    scheme: Scheme,
    servers: Sequence[_Server],
    lanes: Sequence[Lane],
    num_asked: int,
    verdicts: dict[Verdict, int],
) -> Outcome:
    reports = [lane.report for lane in lanes]
    delays = sorted(
        seconds for lane in lanes for seconds in (lane.ages_s if lane.is_live else lane.lateness_s)
    )
    firsts = sorted(r.first_frame_s for r in reports if r.first_frame_s is not None)
    return Outcome(
        scheme=scheme.name,
        num_asked=num_asked,
        num_admitted=verdicts[Verdict.FULL] + verdicts[Verdict.LOWER],
        num_lower=verdicts[Verdict.LOWER],
        num_refused=verdicts[Verdict.REFUSED],
        num_due=sum(report.num_due for report in reports),
        num_missed=sum(report.num_missed for report in reports),
        num_held=sum(report.num_held for report in reports),
        p50_s=_quantile(delays, 0.5),
        p99_s=_quantile(delays, 0.99),
        first_p99_s=_quantile(firsts, 0.99),
        utilisation=sum(s.engine.busy_s for s in servers) / workload.seconds / len(servers),
        rung_changes=sum(report.num_changes for report in reports),
        levels=tuple(servers[0].levels),
        num_ticks=sum(server.engine.num_ticks for server in servers),
    )


def _quantile(rising: Sequence[float], share: float) -> float:
    return rising[math.floor(share * (len(rising) - 1))] if rising else 0.0
