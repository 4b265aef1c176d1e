"""A whole measurement: which cases, in which order; ratios between them and to an older result."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError
from streamgen.metrics.json_value import Json
from streamgen.serving.bench import measure
from streamgen.serving.bench.machine import machine_facts, measure_peaks, spread
from streamgen.serving.bench.measure import Case, Effort, Facts, Runner

PLAIN = "plain"  # as another case: the definitions in plain torch, nothing chosen, nothing compiled
PLAIN_ENVIRONMENT = {"STREAMGEN_KERNELS": "off"}
AS_WRITTEN = ("speed.graphs=off", "speed.overlap=off")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure; counts of 0 leave a part out."""

    preset: str
    overrides: tuple[str, ...]
    compare: tuple[str, ...]
    """"plain", or settings as "cache.ring=6,engine.policy=sequential": other cases of this run."""
    effort: Effort
    cold_starts: int
    memory_frames: int


def run_bench(options: BenchOptions, tell: Callable[[str], None]) -> Facts:
    """Measure; `tell` hears what is going on. Raises what opening the preset raises."""
    clock = MonotonicClock()
    cases = [Case("this", options.preset, options.overrides)]
    cases += [_other(options, text) for text in options.compare]
    tell("loading")
    runners: list[Runner] = []
    try:
        for case in cases:
            runners.append(Runner(case, clock))
        backend = runners[0].host.pipeline.backend
        machine = machine_facts(backend)
        tell("the limits of this machine")
        peaks = measure_peaks(backend, clock)
        tell(f"{options.effort.rounds} rounds of {options.effort.chunks} chunks")
        firsts = measure.measure_rounds(runners, options.effort)
        found: Facts = {"machine": machine, "peaks": peaks.facts()}
        for runner, first_s in zip(runners, firsts, strict=True):
            found[runner.case.name] = runner.facts(peaks) | {"first_frame_new_host_s": first_s}
        this = runners[0]
        tell("the parts")
        found["parts"] = this.parts(repeats=4 * options.effort.rounds)
        found["first_frame_warm_s"] = spread(this.first_frames_warm_s(options.effort.rounds))
        tell("the engine alone")
        found["overhead"] = measure.overhead(this, options.effort, clock)
        if len(runners) > 1:
            found["ratios"] = _ratios(runners)
        if options.cold_starts:
            tell(f"{options.cold_starts} cold starts")
            cold = measure.first_frames_cold_s(cases[0], options.cold_starts, clock)
            found["first_frame_cold_s"] = spread(cold)
        if options.memory_frames:
            tell(f"memory over {options.memory_frames} frames")
            found["memory"] = measure.memory_slope(this, options.memory_frames)
    finally:
        for runner in runners:
            runner.close()
    return found


def compared_with(found: Facts, path: Path) -> Facts:
    """Frames a second of this result over those of a stored one, case by case.

    Raises ConfigError if the file is not a result of `streamgen bench`.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        then = float(stored["this"]["frames_per_second"]["median"])
        settings = stored["this"]["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a result of streamgen bench ({error}); give one that --json wrote"
        ) from None
    this = found["this"]
    assert isinstance(this, dict)
    now = this["frames_per_second"]
    assert isinstance(now, dict)
    median = now["median"]
    assert isinstance(median, float | int)
    mine = this["settings"]
    assert isinstance(mine, dict)
    differing = sorted(name for name in mine if mine.get(name) != settings.get(name))
    return {
        "file": str(path),
        "speed_up": round(median / then, 3),
        "settings_that_differ": list[Json](differing),
        "same_machine": stored.get("machine", {}).get("cpu") == _machine(found).get("cpu"),
    }


def rows_of(found: Facts, path: str = "") -> list[tuple[str, str]]:
    """Every number with its place; a spread or percentiles take one line."""
    rows: list[tuple[str, str]] = []
    for name, value in found.items():
        where = f"{path} / {name}" if path else name
        if not isinstance(value, dict):
            rows.append((where, _shown(value)))
        elif "repeats" in value or "count" in value:
            rows.append((where, ", ".join(f"{key} {_shown(one)}" for key, one in value.items())))
        else:
            rows += rows_of(value, where)
    return rows


def _shown(value: Json) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machine(found: Facts) -> dict[str, Json]:
    machine = found["machine"]
    assert isinstance(machine, dict)
    return machine


def _other(options: BenchOptions, text: str) -> Case:
    if text == PLAIN:
        return Case(PLAIN, options.preset, (*options.overrides, *AS_WRITTEN), PLAIN_ENVIRONMENT)
    settings = tuple(part.strip() for part in text.split(",") if part.strip())
    if not settings or not all("=" in setting for setting in settings):
        raise ConfigError(
            f'--compare {text!r} is neither "plain", nor a result (.json), nor settings as '
            f"key=value,key=value"
        )
    return Case(text, options.preset, (*options.overrides, *settings))


def _ratios(runners: Sequence[Runner]) -> Facts:
    """How many times as fast this case is as each other one: round by round, then the median."""
    this = runners[0].rates
    ratios: Facts = {}
    for other in runners[1:]:
        values = [mine / theirs for mine, theirs in zip(this, other.rates, strict=False)]
        ratios[f"this over {other.case.name}"] = {
            "median": round(statistics.median(values), 3),
            "lowest": round(min(values), 3),
            "highest": round(max(values), 3),
            "repeats": len(values),
        }
    return ratios
