"""How to divide a model among GPUs, as programs ask for it: options in, lines out. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streamgen.errors import ConfigError
from streamgen.parallel.planner import LINKS, Division, Gpu, Reads, Wanted, plan
from streamgen.scheduling.profiles import HardwareProfile, at_size, profile_of

MAX_GPUS = 64
HEAD = ("split", "codec", "blocks", "frames/s", "latency", "slowest", "uneven", "memory", "keeps")


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What `streamgen doctor --gpus` was asked; None: as the profile says."""

    gpus: int
    hardware: str
    link: str = "nvlink"
    speeds: tuple[float, ...] = ()
    """Of each GPU, 1 being the profile's; empty: all alike."""
    memory_gb: float | None = None
    size: tuple[int, int] | None = None
    fps: float = 16.0
    latency_s: float | None = None
    reads: str = "per_step"
    steps: int | None = None
    lag: int = 1


def divisions(options: PlanOptions) -> tuple[HardwareProfile, list[Division]]:
    """All ways to divide, best first. Raises ConfigError for what cannot be meant."""
    profile = profile_of(options.hardware)
    if not 1 <= options.gpus <= MAX_GPUS:
        raise ConfigError(f"{options.gpus} GPUs are not in 1 to {MAX_GPUS}")
    if options.link not in LINKS:
        raise ConfigError(f"link {options.link!r} is not known; known: {', '.join(LINKS)}")
    if options.size is not None:
        pixels = math.prod(options.size)
        if not 1e3 <= pixels <= 1e8:
            raise ConfigError(f"pictures of {pixels} pixels cannot be meant; write --size 480x832")
        profile = at_size(profile, pixels / math.prod(profile.picture))
    return profile, plan(profile, _gpus(options, profile), LINKS[options.link], wanted(options))


def wanted(options: PlanOptions) -> Wanted:
    """The service level that was asked for; ConfigError if there can be none such."""
    steps = profile_of(options.hardware).steps if options.steps is None else options.steps
    if not 1 <= steps <= 1000:
        raise ConfigError(f"{steps} steps are not in 1 to 1000")
    if options.fps <= 0 or (options.latency_s is not None and options.latency_s <= 0):
        raise ConfigError("frames a second and latency must be above 0")
    try:
        reads = Reads(options.reads)
    except ValueError:
        known = ", ".join(Reads)
        raise ConfigError(f"reads {options.reads!r} is not known; known: {known}") from None
    if not 1 <= options.lag <= steps or (options.lag != 1 and reads is not Reads.CASCADED):
        raise ConfigError(f"a lag of {options.lag} is for --reads cascaded, 1 to {steps} steps")
    return Wanted(options.fps, options.latency_s, reads, steps, options.lag)


def plan_lines(options: PlanOptions) -> list[str]:
    """The table, one way a line, and how to start the first of them."""
    profile, found = divisions(options)
    level = wanted(options)
    size = options.size or profile.picture
    lines = [
        f"{options.gpus} x {profile.name}, {options.link}, {size[0]}x{size[1]}, "
        f"{level.steps} steps, {level.reads} context; wanted {level.fps:g} frames/s"
        + ("" if level.latency_s is None else f" within {level.latency_s:g} s"),
        f"speeds {profile.origin}; nothing was measured for this table",
    ]
    rows = [HEAD, *(_row(one, level) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines += [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    best = found[0]
    if options.gpus == 1:
        return lines
    if not best.fits:
        return [*lines, "none of these fits into memory; use more GPUs or a smaller picture"]
    how = f"--gpus {len(best.blocks)} --split {best.split} --codec {best.codec}"
    kept = "keeps" if best.keeps(level) else "comes nearest to"
    return [*lines, f"{kept} what was wanted: streamgen run ... {how}"]


def _gpus(options: PlanOptions, profile: HardwareProfile) -> list[Gpu]:
    speeds = options.speeds or (1.0,) * options.gpus
    if len(speeds) != options.gpus or min(speeds) <= 0:
        raise ConfigError(
            f"{len(speeds)} speeds for {options.gpus} GPUs; give each one, above 0, as 1,1,0.5"
        )
    memory_gb = profile.memory_gb if options.memory_gb is None else options.memory_gb
    return [Gpu(memory_gb, speed) for speed in speeds]


def _row(one: Division, level: Wanted) -> Sequence[str]:
    return (
        one.split,
        str(one.codec),
        "+".join(str(count) for count in one.blocks),
        f"{one.fps:.2f}",
        f"{one.latency_s:.3f} s",
        f"{1e3 * max(one.gpu_s):.1f} ms",
        f"{100 * one.imbalance:.0f} %",
        f"{max(one.memory_gb):.1f} GB" + ("" if one.fits else " !"),
        "yes" if one.keeps(level) else "no",
    )
