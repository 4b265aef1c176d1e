"""SloAware against what others do, on a stopwatch: python scripts/bench_slo.py

Writes a table (benchmarks/slo-simulated.json) and curves beside it. Everything is simulated but the
times of the scheduler itself, which are this machine's. The tests assert the same at a smaller size
(tests/simulation).
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from small_cases import against_the_feasible
from streamgen.cache.rows import RowPool
from streamgen.cache.window import Positions
from streamgen.clock import SimulatedClock
from streamgen.diffusion.guidance import Guidance
from streamgen.diffusion.schedule import Ladder, NoiseSchedule
from streamgen.engine.batch import Level, Started
from streamgen.engine.collaborators import HeldClip, PendingClip
from streamgen.engine.engine import Engine
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.simulated import SimulatedExecutor
from streamgen.engine.terms import ServiceTerms
from streamgen.metrics.export import Metrics
from streamgen.scheduling.capacity import Capacity, Governor, Offer, utilisation
from streamgen.scheduling.cluster import simulate_day
from streamgen.scheduling.curves import draw
from streamgen.scheduling.gallery import PLAYBACK, gallery
from streamgen.scheduling.kinds import Kind
from streamgen.scheduling.lane import Demand
from streamgen.scheduling.latency import Costs, LatencyFit
from streamgen.scheduling.profiles import PROFILES
from streamgen.scheduling.service import Quality, ServiceLevel
from streamgen.scheduling.simulate import SCHEMES, Outcome, simulate
from streamgen.scheduling.workload import Workload
from streamgen.serving.bench.machine import cpu_name
from streamgen.types import Clip

OURS, *OTHERS = SCHEMES
BEHIND_OUR_ADMISSION = tuple(
    replace(OURS, name=f"{one.name}_with_our_admission", make_policy=one.make_policy)
    for one in OTHERS
    if one.max_sessions > 1
)
UNGOVERNED = replace(OURS, name="slo_aware_alone", has_governor=False)
SEEDS = (0, 1, 2)
CHANGE_WINDOW_S = 10.0  # in which one change of the ladder is allowed
SETTLED_S = 2.0  # after which an evening that begins with everybody at once is constant load
LOADS = (0.5, 0.8, 0.9, 0.95, 0.98)
NUM_SMALL_CASES = 400
NUM_OVERHEAD_TICKS = 400


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/slo-simulated.json"))
    parser.add_argument("--seconds", type=float, default=90.0, help="of each workload")
    parser.add_argument("--overhead", action="store_true", help="measure this only, and print it")
    options = parser.parse_args()
    if options.overhead:
        print(json.dumps([overhead("tiny-cpu", 64), overhead("h100-1.3b-tiny-codec", 16)]))
        return 0
    result = {
        "machine": f"{cpu_name()}, Python {sys.version.split()[0]}",
        "commit": _commit(),
        "seconds_of_each_workload": options.seconds,
        "seeds": SEEDS,
        "hardware": {name: profile.origin for name, profile in sorted(PROFILES.items())},
        "workloads": compare(options.seconds),
        "load": under_load(options.seconds),
        "slowdown_by_half": slowdown(),
        "constant_load": steadiness(options.seconds),
        "admitted_of_what_is_possible": admitted(),
        "small_cases": against_the_feasible(NUM_SMALL_CASES),
        "overhead": [overhead("tiny-cpu", 64), overhead("h100-1.3b-tiny-codec", 16)],
        "an_hour_of_8_sessions": hour(),
        "a_day_of_a_million": day(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".svg").write_text(curves(options.seconds / 3), encoding="utf-8")
    return 0


def compare(seconds: float) -> dict[str, object]:
    """Every workload under every scheme, over all seeds."""
    told: dict[str, object] = {}
    for name in gallery(seconds):
        schemes: dict[str, dict[str, object]] = {}
        missed: dict[str, int] = {}
        for scheme in (*SCHEMES, *BEHIND_OUR_ADMISSION):
            outcomes = [simulate(gallery(seconds, seed=seed)[name], scheme) for seed in SEEDS]
            schemes[scheme.name] = _row(outcomes)
            missed[scheme.name] = sum(one.num_missed for one in outcomes)
        best = min(missed[other.name] for other in OTHERS)
        told[name] = {"schemes": schemes, "missed_more_than_best_other": missed[OURS.name] - best}
        print(name, schemes[OURS.name], flush=True)
    return told


def _row(outcomes: Sequence[Outcome]) -> dict[str, object]:
    due, missed = sum(o.num_due for o in outcomes), sum(o.num_missed for o in outcomes)
    return {
        "asked": sum(o.num_asked for o in outcomes),
        "admitted": sum(o.num_admitted for o in outcomes),
        "of_them_lower": sum(o.num_lower for o in outcomes),
        "chunks_due": due,
        "chunks_missed": missed,
        "chunks_in_time": due - missed,
        "missed_percent": round(100 * missed / max(due, 1), 3),
        "p50_s": round(max(o.p50_s for o in outcomes), 3),
        "p99_s": round(max(o.p99_s for o in outcomes), 3),
        "first_p99_s": round(max(o.first_p99_s for o in outcomes), 3),
        "busy_percent": round(100 * sum(o.utilisation for o in outcomes) / len(outcomes), 1),
    }


LOADED = {
    "alike": (5, (Kind(min_steps=2),)),
    "short of time": (3, (Kind(min_steps=2, latency_s=0.4),)),
    "two rates": (6, (Kind(min_steps=2, latency_s=0.5), Kind(8.0, 1.5, min_steps=2))),
    "live and playback": (4, (Kind(latency_s=0.4, steps=1), PLAYBACK)),
}


def under_load(seconds: float) -> list[dict[str, object]]:
    """Latency of sessions whose work takes a share of the device, without any way down.

    All are let in, so that the policy is measured and not admission, which is told beside it.
    """
    rows: list[dict[str, object]] = []
    for (name, (count, kinds)), share in itertools.product(LOADED.items(), LOADS):
        faster = next(f / 500 for f in range(2000, 0, -1) if _share(kinds, count, f / 500) <= share)
        workload = Workload(kinds=_at(kinds, faster), sessions=count, seconds=seconds)
        alone, governed = simulate(workload, UNGOVERNED), simulate(workload, OURS)
        rows.append(
            {
                "sessions": f"{count} {name}",
                "load_percent": round(100 * _share(kinds, count, faster), 1),
                "busy_percent": round(100 * alone.utilisation, 1),
                "missed_percent": round(100 * alone.miss_share, 3),
                "p99_s": round(alone.p99_s, 3),
                "promised_s": [kind.latency_s for kind in kinds],
                "admission_lets_in": governed.num_admitted,
            }
        )
    return rows


def _at(kinds: tuple[Kind, ...], faster: float) -> tuple[Kind, ...]:
    return tuple(replace(kind, fps=kind.fps * faster) for kind in kinds)


def _share(kinds: tuple[Kind, ...], count: int, faster: float) -> float:
    profile = Workload(sessions=1).profile
    turns = itertools.islice(itertools.cycle(_at(kinds, faster)), count)
    return utilisation([kind.offer(profile).rungs[0] for kind in turns], profile.costs)


def slowdown() -> dict[str, object]:
    """When the ladder answers hardware at half its speed, from 20 s to 50 s, and takes it back."""
    workload = Workload(
        sessions=4, seconds=120.0, slowdown=2.0, slow_from_s=20.0, slow_until_s=50.0
    )
    outcome = simulate(workload, OURS)
    down_s = next(time_s for time_s, level in outcome.levels if level and time_s >= 20.0)
    back_s = next((t for t, level in outcome.levels if level == 0 and t > 50.0), None)
    return {
        "answered_after_s": round(down_s - 20.0, 2),
        "undone_after_s": None if back_s is None else round(back_s - 50.0, 2),
        "missed_percent": round(100 * outcome.miss_share, 3),
        "levels": outcome.levels,
    }


def steadiness(seconds: float) -> dict[str, object]:
    """The most changes of the ladder in ten seconds, whatever the seed and the noise."""
    most, num_runs = 0, 0
    for sessions, seed, noise in itertools.product((3, 4, 5, 6, 7), SEEDS, (0.02, 0.1)):
        workload = Workload(sessions=sessions, seconds=seconds, noise=noise, seed=seed)
        times = [time_s for time_s, _ in simulate(workload, OURS).levels[1:] if time_s > SETTLED_S]
        in_windows = [sum(0 <= t - start < CHANGE_WINDOW_S for t in times) for start in times]
        most, num_runs = max([most, *in_windows]), num_runs + 1
    return {"runs": num_runs, "most_changes_in_10_s": most}


def admitted() -> dict[str, object]:
    """Sessions let in, of the most that any order of forwards at all could serve."""
    service = ServiceLevel(fps=16, first_frame_s=2.0, latency_s=0.6)
    worst, cases = 1.0, 0
    for fixed_s, row_s in itertools.product((0.001, 0.01, 0.03), (0.002, 0.005, 0.02, 0.035)):
        for steps, in_flight in ((1, 1), (2, 1), (2, 2)):
            costs = Costs(LatencyFit(fixed_s, row_s))
            capacity = Capacity(max_rows=1024, cache_rows=1024)
            offer = Offer(service, (Demand(0.25, 0.1875, steps, 0, 1, 1, in_flight, 4, steps),))
            forwards = steps if in_flight == 1 else 1
            bound = int((0.25 - forwards * fixed_s) / (steps * row_s) + 1e-9)
            ours = next(n for n in range(bound, -1, -1) if capacity.fits([offer] * n, 0, costs))
            worst, cases = min(worst, ours / bound), cases + 1
    return {"cases": cases, "least_share_of_upper_bound": round(worst, 3)}


def overhead(hardware: str, num_sessions: int) -> dict[str, object]:
    """What deciding takes of a tick in the real engine: views, policy, review of all sessions.

    Work is a number of seconds; deciding takes what this thread computes meanwhile.
    """
    costs = PROFILES[hardware].costs.denoise
    clock = ThreadClock()
    metrics = Metrics(clock)
    steps, period_s = 2, 4.0
    ladder = Ladder.warped(NoiseSchedule(5.0), (1000, 500))
    recipe = Recipe(
        ladder=ladder, mode=CacheMode.PER_STEP, context_level=Level(0.0, 0.0), sinks=1, ring=3,
        positions=Positions.WINDOW, chunk_frames=1, first_chunk_frames=1,
        first_chunk_is_alone=False, guidance=Guidance(),
    )  # fmt: skip
    num_rows = steps * num_sessions
    engine = Engine(
        SimulatedExecutor(clock, (lambda b: costs.fixed_s + costs.per_unit_s * len(b.rows),)),
        OURS.make_policy(), rows=RowPool(num_rows), max_rows=num_rows, clock=clock,
        metrics=metrics, governor=Governor(Capacity(max_rows=num_rows, cache_rows=num_rows)),
    )  # fmt: skip
    service = ServiceLevel(fps=1, first_frame_s=3 * period_s, latency_s=2 * period_s)
    offer = Offer(service, (Demand(period_s, 3.0, steps, 0, 1, 1, steps, 4, steps),))
    prompt = engine.add_prompt(torch.zeros(1, 1))
    sessions = [
        engine.open(
            recipe,
            make_starter=lambda: Regular(clock, period_s),
            decoder=NoPictures(),
            seed=0,
            prompt=prompt,
            negative_prompt=prompt,
            max_waiting_clips=4,
            terms=ServiceTerms(service, (Quality(steps),), offer, 1.0),
        )
        for _ in range(num_sessions)
    ]
    num_ticks = 0
    while num_ticks < NUM_OVERHEAD_TICKS:
        num_ticks += engine.tick()
        for session in sessions:
            session.clips.clear()
    deciding = metrics.summary("streamgen_scheduling_seconds", "").percentiles()
    tick = metrics.summary("streamgen_tick_seconds", "").percentiles()
    rows = metrics.summary("streamgen_batch_rows", "").percentiles()
    return {
        "hardware": hardware,
        "sessions": num_sessions,
        "tick_ms": round(1e3 * tick.total / tick.count, 2),
        "rows_of_a_tick": round(rows.total / rows.count, 1),
        "deciding_p50_ms": round(1e3 * (deciding.p50 or 0.0), 3),
        "deciding_p99_ms": round(1e3 * (deciding.p99 or 0.0), 3),
        "share_percent": round(100 * deciding.total / tick.total, 2),
    }


class ThreadClock(SimulatedClock):
    """A clock that jumps, and that goes on while this thread computes."""

    def now(self) -> float:
        return super().now() + time.thread_time()

    def advance_to(self, time_s: float) -> None:
        super().advance_to(time_s - time.thread_time())


class Regular:
    """A live input with a clip each so many seconds."""

    def __init__(self, clock: SimulatedClock, period_s: float) -> None:
        self._clock, self._period_s = clock, period_s
        self._began_s = clock.now()
        self._num_taken = 0

    @property
    def waiting_clips(self) -> int:
        return int((self._clock.now() - self._began_s) / self._period_s) - self._num_taken

    def waiting_captured_s(self) -> tuple[float, ...]:
        first = self._num_taken
        return tuple(self._captured_s(first + n) for n in range(self.waiting_clips))

    def _captured_s(self, number: int) -> float:
        return self._began_s + number * self._period_s

    def take_still(self, max_clips: int) -> tuple[HeldClip, ...]:
        return ()

    def take_lost(self) -> int:
        return 0

    def ready(self) -> bool:
        return self.waiting_clips > 0

    def has_ended(self) -> bool:
        return False

    def drop(self, num_clips: int) -> None:
        self._num_taken += num_clips

    def start(self, chunk: int) -> Started:
        self._num_taken += 1
        captured_s = self._captured_s(self._num_taken - 1)
        nothing = torch.zeros(0)
        return Started(nothing, None, None, None, captured_s, captured_s, 4)


class NoPictures:
    """Decodes nothing."""

    def decode(
        self, latents_FCHW: object, *, num_frames: int, pts_s: float, captured_s: float
    ) -> PendingClip:
        return self

    def has_arrived(self) -> bool:
        return True

    def device_s(self) -> float | None:
        return None

    def wait(self) -> Clip:
        raise AssertionError("there are no pictures here")


def hour() -> dict[str, object]:
    began_s, busy_s = time.perf_counter(), time.process_time()
    outcome = simulate(Workload(sessions=8, seconds=3600.0), OURS)
    return {
        "wall_s": round(time.perf_counter() - began_s, 2),
        "cpu_s": round(time.process_time() - busy_s, 2),
        "ticks": outcome.num_ticks,
        "missed_percent": round(100 * outcome.miss_share, 3),
    }


def day() -> dict[str, object]:
    began_s, busy_s = time.perf_counter(), time.process_time()
    workload = Workload(hardware="h200-14b-tiny-codec", gpus=2000, sessions=1, stay_s=180.0)
    outcome = simulate_day(workload, num_sessions=1_000_000)
    return {
        "engines": outcome.num_engines,
        "full": outcome.num_full,
        "lower": outcome.num_lower,
        "refused": outcome.num_refused,
        "highest_at_once": outcome.highest_at_once,
        "wall_s": round(time.perf_counter() - began_s, 1),
        "cpu_s": round(time.process_time() - busy_s, 1),
    }


def curves(seconds: float) -> str:
    workload = Workload(seconds=seconds, sessions=1)
    sweep = [
        (count, [simulate(replace(workload, sessions=count), scheme) for scheme in SCHEMES])
        for count in range(1, 13)
    ]
    return draw(
        sweep, title="h100-1.3b-tiny-codec (computed), sessions at 16 pictures/s, 0.6 s promised"
    )


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
