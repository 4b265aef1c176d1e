"""Simulations as programs ask for them: a workload in, lines and curves out. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from streamgen.errors import ConfigError
from streamgen.scheduling.cluster import DAY_S, simulate_day
from streamgen.scheduling.curves import draw
from streamgen.scheduling.profiles import PROFILES
from streamgen.scheduling.simulate import SCHEMES, Outcome, simulate
from streamgen.scheduling.workload import Workload, load_workload, workload_of

HEAD = ("policy", "asked", "in", "lower", "refused", "missed", "p50", "p99", "first p99", "busy")


def read_workload(path: Path | None, overrides: Sequence[tuple[str, object]]) -> Workload:
    """A workload file, or an empty one, with some keys set. Raises ConfigError."""
    table: dict[str, object] = {} if path is None else asdict(load_workload(path))
    table.update(overrides)
    table = {k: list(v) if isinstance(v, tuple) else v for k, v in table.items()}
    return workload_of(table, origin="workload" if path is None else path.name)


def compare(workload: Workload) -> list[Outcome]:
    """The workload under every policy."""
    return [simulate(workload, scheme) for scheme in SCHEMES]


def table_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """One line a policy, aligned."""
    rows: list[tuple[str, ...]] = [HEAD]
    for one in outcomes:
        rows.append((
            one.scheme, str(one.num_asked), str(one.num_admitted), str(one.num_lower),
            str(one.num_refused), f"{100 * one.miss_share:.2f}%", f"{one.p50_s:.3f}s",
            f"{one.p99_s:.3f}s", f"{one.first_p99_s:.2f}s", f"{100 * one.utilisation:.0f}%",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]


def curves(workload: Workload, *, most: int) -> str:
    """SVG of every policy over 1 to `most` sessions that ask at once."""
    counts = sorted({max(1, round(most * part / 8)) for part in range(1, 9)})
    sweep = [(n, compare(replace(workload, sessions=n, arrivals_a_minute=0.0))) for n in counts]
    origin = PROFILES[workload.hardware].origin.split(":")[0]
    return draw(sweep, title=f"{workload.hardware} ({origin}), {workload.seconds:g} s")


def day_lines(workload: Workload, *, num_sessions: int) -> list[str]:
    """What a day of so many sessions does to `workload.gpus` engines."""
    if num_sessions < 1:
        raise ConfigError(f"{num_sessions} sessions are no day; ask for at least 1")
    day = simulate_day(workload, num_sessions=num_sessions, seconds=DAY_S)
    return [
        f"{day.num_asked} sessions in a day on {day.num_engines} engines ({workload.hardware})",
        f"at once: {day.mean_at_once:.0f} on average, {day.highest_at_once} at most; "
        f"{day.mean_load:.1f} an engine",
        f"full quality {day.num_full}, lower {day.num_lower}, refused {day.num_refused}",
    ]


def hardware_lines() -> list[str]:
    """The hardware profiles, and where their numbers are from."""
    return [f"{name}: {profile.origin}" for name, profile in sorted(PROFILES.items())]
