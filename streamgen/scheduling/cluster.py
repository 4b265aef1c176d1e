"""A router in front of many engines, session by session: a day of a million sessions in minutes.

Too many to tick: an engine is here the sessions on it, and whether they are in time at a level is
looked up in rehearsals, which are few because most sets of sessions come again. Policies and
admission are those of the engines; the noise of single ticks is not seen here.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

from streamgen.scheduling.capacity import ADMIT_MARGIN, MARGIN, Capacity, Offer
from streamgen.scheduling.latency import Costs
from streamgen.scheduling.workload import Workload

DAY_S = 86_400.0
NUM_TRIED = 3  # engines that the router asks: the least loaded of so many sorts of load


@dataclass(frozen=True, slots=True)
class Day:
    """What came of a day."""

    num_engines: int
    num_asked: int
    num_full: int
    num_lower: int
    num_refused: int
    highest_at_once: int
    mean_at_once: float
    num_rehearsals: int

    @property
    def mean_load(self) -> float:
        """Sessions an engine, on average."""
        return self.mean_at_once / self.num_engines


class _Rack:
    """Engines sorted by how many sessions of each kind they have: alike ones are one."""

    def __init__(self, num_engines: int, num_kinds: int) -> None:
        self.loads = [(0,) * num_kinds for _ in range(num_engines)]
        self.heap = [(0, place) for place in range(num_engines)]

    def least_loaded(self) -> list[int]:
        """Some engines with the fewest sessions, no two with the same sessions."""
        found: list[int] = []
        seen: set[tuple[int, ...]] = set()
        popped: list[tuple[int, int]] = []
        while self.heap and len(found) < NUM_TRIED and len(popped) < 4 * NUM_TRIED:
            count, place = heapq.heappop(self.heap)
            if count != sum(self.loads[place]):
                continue  # an entry of before
            popped.append((count, place))
            if self.loads[place] not in seen:
                seen.add(self.loads[place])
                found.append(place)
        for entry in popped:
            heapq.heappush(self.heap, entry)
        return found

    def change(self, place: int, kind: int, by: int) -> None:
        load = list(self.loads[place])
        load[kind] += by
        self.loads[place] = tuple(load)
        heapq.heappush(self.heap, (sum(load), place))


def simulate_day(workload: Workload, *, num_sessions: int, seconds: float = DAY_S) -> Day:
    """Route so many sessions, arriving all day long, to `workload.gpus` engines.

    Arrivals are Poisson; stays exponential with mean `workload.stay_s` (60 s if that is 0).
    """
    draw = random.Random(workload.seed)
    profile = workload.profile
    offers = [kind.offer(profile) for kind in workload.all_kinds]
    capacity = Capacity(max_rows=4096, cache_rows=profile.cache_rows)
    safe = profile.costs.times(MARGIN * ADMIT_MARGIN)
    known: dict[tuple[int, ...], int | None] = {}
    rack = _Rack(workload.gpus, len(offers))
    leaving: list[tuple[float, int, int]] = []
    full = lower = refused = at_once = highest = 0
    present_s = 0.0
    now_s = 0.0
    for number in range(num_sessions):
        now_s += draw.expovariate(num_sessions / seconds)
        while leaving and leaving[0][0] <= now_s:
            _, place, kind = heapq.heappop(leaving)
            rack.change(place, kind, -1)
            at_once -= 1
        kind = number % len(offers)
        placed = _place(rack, kind, offers, capacity, safe, known)
        if placed is None:
            refused += 1
            continue
        place, level = placed
        full, lower = full + (level == 0), lower + (level > 0)
        rack.change(place, kind, 1)
        stay_s = draw.expovariate(1 / (workload.stay_s or 60.0))
        heapq.heappush(leaving, (now_s + stay_s, place, kind))
        at_once += 1
        highest = max(highest, at_once)
        present_s += stay_s
    return Day(
        num_engines=workload.gpus,
        num_asked=num_sessions,
        num_full=full,
        num_lower=lower,
        num_refused=refused,
        highest_at_once=highest,
        mean_at_once=present_s / max(now_s, 1e-9),
        num_rehearsals=len(known),
    )


def _place(
    rack: _Rack,
    kind: int,
    offers: Sequence[Offer],
    capacity: Capacity,
    safe: Costs,
    known: dict[tuple[int, ...], int | None],
) -> tuple[int, int] | None:
    best: tuple[int, int] | None = None
    for place in rack.least_loaded():
        load = list(rack.loads[place])
        load[kind] += 1
        key = tuple(load)
        if key not in known:
            present = [offer for offer, n in zip(offers, load, strict=True) for _ in range(n)]
            known[key] = capacity.best_level(present, safe)
        level = known[key]
        if level is not None and (best is None or level < best[1]):
            best = (place, level)
        if level == 0:
            break
    return best
