"""SloAware against what others do, on a stopwatch: python scripts/bench_slo.py

Writes a table (benchmarks/slo-simulated.json) and curves beside it. Everything is simulated but the
times of the scheduler itself, which are this machine's. The tests assert the same at a smaller size
(tests/simulation).
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from streamgen.metrics.stats import Summary
from streamgen.scheduling.baselines import FirstComeFirstServed
from streamgen.scheduling.capacity import Capacity, Offer, utilisation
from streamgen.scheduling.cluster import simulate_day
from streamgen.scheduling.curves import draw
from streamgen.scheduling.gallery import gallery
from streamgen.scheduling.latency import Costs, LatencyFit
from streamgen.scheduling.mirror import Demand
from streamgen.scheduling.profiles import PROFILES
from streamgen.scheduling.service import ServiceLevel
from streamgen.scheduling.simulate import SCHEMES, Outcome, simulate
from streamgen.scheduling.workload import Workload

OURS, *OTHERS = SCHEMES
GOVERNED = replace(OURS, name="fcfs_with_our_admission", make_policy=FirstComeFirstServed)
SEEDS = (0, 1, 2)
CHANGE_WINDOW_S = 10.0  # in which one change of the ladder is allowed
SETTLED_S = 2.0  # after which an evening that begins with everybody at once is constant load
LOADS = (0.5, 0.7, 0.8, 0.9, 0.95)
NUM_OVERHEAD_SESSIONS = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/slo-simulated.json"))
    parser.add_argument("--seconds", type=float, default=90.0, help="of each workload")
    options = parser.parse_args()
    result = {
        "machine": f"{platform.processor() or platform.machine()}, Python {sys.version.split()[0]}",
        "commit": _commit(),
        "seconds_of_each_workload": options.seconds,
        "seeds": SEEDS,
        "hardware": {name: profile.origin for name, profile in sorted(PROFILES.items())},
        "workloads": compare(options.seconds),
        "load": under_load(options.seconds),
        "slowdown_by_half": slowdown(),
        "constant_load": steadiness(options.seconds),
        "admitted_of_what_is_possible": admitted(),
        "overhead": [overhead(name) for name in ("h100-1.3b", "tiny-cpu")],
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
        for scheme in (*SCHEMES, GOVERNED):
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


def under_load(seconds: float) -> list[dict[str, object]]:
    """Latency of five sessions whose work takes a share of the device, without any way down."""
    rows: list[dict[str, object]] = []
    for share in LOADS:
        fps = next(fps / 10 for fps in range(400, 0, -1) if _share(fps / 10) <= share)
        workload = Workload(sessions=5, fps=(fps,), min_steps=2, seconds=seconds)
        outcome = simulate(workload, OURS)
        rows.append(
            {
                "load_percent": round(100 * _share(fps), 1),
                "busy_percent": round(100 * outcome.utilisation, 1),
                "admitted": outcome.num_admitted,
                "asked": outcome.num_asked,
                "missed_percent": round(100 * outcome.miss_share, 3),
                "p99_s": round(outcome.p99_s, 3),
                "promised_s": workload.latency_s,
            }
        )
    return rows


def _share(fps: float) -> float:
    workload = Workload(sessions=5, fps=(fps,))
    return utilisation([workload.rungs(fps)[0]] * 5, workload.profile.costs)


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


def overhead(hardware: str) -> dict[str, object]:
    """Seconds in which a tick of many sessions is decided, beside the seconds that it takes."""
    workload = Workload(
        hardware=hardware,
        sessions=NUM_OVERHEAD_SESSIONS,
        fps=(1.0,) if hardware != "tiny-cpu" else (2.0,),
        latency_s=6.0,
        first_frame_s=6.0,
        seconds=60.0,
    )
    deciding = Summary()
    outcome = simulate(workload, replace(OURS, make_policy=lambda: Timed(deciding)))
    seen = deciding.percentiles()
    tick_s = outcome.utilisation * workload.seconds / max(1, outcome.num_ticks)
    assert seen.p50 is not None
    assert seen.p99 is not None
    return {
        "hardware": hardware,
        "sessions": outcome.num_admitted,
        "tick_ms": round(1e3 * tick_s, 1),
        "deciding_p50_ms": round(1e3 * seen.p50, 3),
        "deciding_p99_ms": round(1e3 * seen.p99, 3),
        "share_percent": round(100 * seen.total / seen.count / tick_s, 3),
    }


class Timed:
    """The policy, timed; a rehearsal's own decisions do not pass here."""

    def __init__(self, deciding: Summary) -> None:
        self._policy = OURS.make_policy()
        self._deciding = deciding

    def plan(self, view, latency):  # type: ignore[no-untyped-def]
        began_s = time.perf_counter()
        plan = self._policy.plan(view, latency)
        self._deciding.add(time.perf_counter() - began_s)
        return plan


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
    workload = Workload(hardware="h200-14b", gpus=2000, sessions=1, stay_s=180.0)
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
    workload = Workload(seconds=seconds)
    sweep = [
        (count, [simulate(replace(workload, sessions=count), scheme) for scheme in SCHEMES])
        for count in range(1, 13)
    ]
    return draw(sweep, title="h100-1.3b (computed), sessions at 16 pictures/s, 0.6 s promised")


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
