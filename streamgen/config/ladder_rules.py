"""Which noise levels a ladder may have, and which of them later chunks may take."""

from __future__ import annotations

from itertools import pairwise

from streamgen.config.complaints import wrong


def check_ladder(timesteps: tuple[float, ...], later: tuple[float, ...]) -> None:
    """Raises ConfigError unless levels fall, and later chunks begin at the first of them."""
    is_falling = all(high > low for high, low in pairwise(timesteps))
    is_inside = all(0 < timestep <= 1000 for timestep in timesteps)
    if not (timesteps and is_falling and is_inside):
        raise wrong(
            "denoise.timesteps",
            list(timesteps),
            "must be at least one number, strictly falling, each in (0, 1000]",
            "use [1000, 750, 500, 250]",
        )
    if not later:
        return
    is_part = set(later) < set(timesteps) and list(later) == sorted(set(later), reverse=True)
    if not is_part or later[0] != timesteps[0]:
        raise wrong(
            "denoise.later_timesteps",
            list(later),
            f"must be some, not all, of denoise.timesteps = {list(timesteps)}, falling, from the "
            f"first of them on",
            f"use {list(timesteps[:1])} or leave it out",
        )


def check_later(later: tuple[float, ...], *, cache_mode: str, reuses: bool) -> None:
    """Raises ConfigError where later chunks cannot leave steps out."""
    if later and cache_mode in ("per_step", "cascaded", "joint"):
        raise wrong(
            "denoise.later_timesteps",
            list(later),
            f'cannot be followed with cache.mode = "{cache_mode}", where chunks at different steps '
            f"are in flight",
            'leave it out or set cache.mode = "clean"',
        )
    if later and reuses:
        raise wrong(
            "denoise.later_timesteps",
            list(later),
            "leaves out steps that speed.reuse_steps would take from",
            "leave one of them out",
        )
