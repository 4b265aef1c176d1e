"""Which cache settings go together. A setting that would have no effect is an error."""

from __future__ import annotations

from typing import Protocol

from streamgen.config.complaints import check_range, shown, wrong
from streamgen.errors import ConfigError

MAX_REACH = 100_000  # latent frames; an hour and more at 16 pictures a second


class CacheSettings(Protocol):
    """The fields of CacheConfig that these rules read."""

    @property
    def mode(self) -> str: ...
    @property
    def sinks(self) -> int: ...
    @property
    def ring(self) -> int: ...
    @property
    def positions(self) -> str: ...
    @property
    def sink_kind(self) -> str: ...
    @property
    def sink_decay(self) -> float: ...
    @property
    def sink_threshold(self) -> float: ...
    @property
    def sink_place(self) -> str: ...
    @property
    def sink_reach(self) -> int: ...
    @property
    def refresh(self) -> int: ...
    @property
    def on_prompt(self) -> str: ...
    @property
    def flush_keeps(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def cascade_lag(self) -> int: ...


def check_cache(cache: CacheSettings) -> None:
    """Raises ConfigError for settings of [cache] that cannot be followed together."""
    if cache.mode in ("recompute", "joint"):
        _check_own_positions(cache)
    _check_sink(cache)
    _check_place(cache)
    _check_refresh(cache)
    _check_switch(cache)


def check_cache_and_chunks(cache: CacheSettings, chunk_frames: int) -> None:
    """Raises ConfigError for settings of [cache] that chunks of this size cannot follow."""
    if cache.ring < chunk_frames:
        raise wrong(
            "cache.ring",
            cache.ring,
            f"does not hold a chunk of denoise.chunk_frames = {chunk_frames}",
            f"use {chunk_frames} or more",
        )
    if cache.sink_kind == "adaptive" and chunk_frames != 1:
        raise wrong(
            "cache.sink_kind",
            cache.sink_kind,
            f"compares single frames and denoise.chunk_frames is {chunk_frames}",
            'use "fixed" or denoise.chunk_frames = 1',
        )
    if cache.on_prompt == "flush" and cache.flush_keeps >= cache.ring - chunk_frames:
        raise wrong(
            "cache.flush_keeps",
            cache.flush_keeps,
            f"would forget nothing: beside a new chunk the ring holds "
            f"{cache.ring - chunk_frames} latent frames",
            'lower it, raise cache.ring, or set cache.on_prompt = "keep"',
        )


def check_cascade(cache: CacheSettings, num_steps: int, guidance: str) -> None:
    """Raises ConfigError for a cascade that a ladder of so many steps cannot follow."""
    lag = cache.cascade_lag
    if cache.mode != "cascaded":
        if lag != 1:
            raise wrong(
                "cache.cascade_lag",
                lag,
                f'has no effect with cache.mode = "{cache.mode}", must be 1',
                'leave it out or set cache.mode = "cascaded"',
            )
        return
    if not 1 <= lag <= num_steps:
        raise wrong(
            "cache.cascade_lag",
            lag,
            f"must be in [1, {num_steps}], the steps of denoise.timesteps",
            "use 1",
        )
    if guidance == "initialize":
        raise wrong(
            "denoise.guidance",
            guidance,
            'has an unconditional side at the first step only, of which cache.mode = "cascaded" '
            "would never read anything fresher",
            'use "full" or cache.mode = "clean"',
        )


def check_joint(
    cache: CacheSettings,
    *,
    num_steps: int,
    chunk_frames: int,
    task: str,
    guidance: str,
    saves_work: bool,
) -> None:
    """Raises ConfigError for settings that windows of chunks on the ladder cannot follow."""
    if cache.mode != "joint":
        return
    window = num_steps * chunk_frames
    if cache.ring < window:
        raise wrong(
            "cache.ring",
            cache.ring,
            f"does not hold a window of {num_steps} chunks of {chunk_frames} latent frames",
            f"use {window} or more",
        )
    for key, value, only in (
        ("task", task, "text-to-video"),
        ("denoise.guidance", guidance, "none"),
    ):
        if value != only:
            raise wrong(
                key,
                value,
                'cannot be followed with cache.mode = "joint", whose window must have no gaps and '
                "one side",
                f'set it to "{only}" or cache.mode = "clean"',
            )
    if saves_work:
        raise ConfigError(
            "speed.clean_share, speed.reuse_steps and speed.heads have no part in cache.mode = "
            '"joint", whose forwards hold all steps at once; leave them out'
        )


def _check_own_positions(cache: CacheSettings) -> None:
    why = f'has no effect with cache.mode = "{cache.mode}", whose positions are the window\'s'
    for key, value, only in (
        ("positions", cache.positions, "window"),
        ("sink_kind", cache.sink_kind, "fixed"),
        ("sink_place", cache.sink_place, "own"),
        ("refresh", cache.refresh, 0),
        ("on_prompt", cache.on_prompt, "keep"),
    ):
        if value != only:
            raise wrong(f"cache.{key}", value, why, f"set it to {shown(only)}")


def _check_sink(cache: CacheSettings) -> None:
    for key, value, kind in (
        ("sink_decay", cache.sink_decay, "ema"),
        ("sink_threshold", cache.sink_threshold, "adaptive"),
    ):
        if cache.sink_kind != kind:
            if value != 0:
                raise wrong(
                    f"cache.{key}",
                    value,
                    f'has no effect with cache.sink_kind = "{cache.sink_kind}"',
                    f'leave it out or set cache.sink_kind = "{kind}"',
                )
        elif not 0 < value <= 1 or (kind == "ema" and value == 1):
            allowed, use = ("below 1", 0.999) if kind == "ema" else ("to 1", 0.2)
            raise wrong(f"cache.{key}", value, f"must be above 0 {allowed}", f"use {use}")
    if cache.sink_kind != "fixed" and cache.sinks == 0:
        raise wrong(
            "cache.sink_kind", cache.sink_kind, "needs sinks and cache.sinks is 0", "raise it"
        )
    if cache.sink_kind == "ema" and cache.positions == "absolute" and cache.sink_place == "own":
        raise wrong(
            "cache.sink_kind",
            cache.sink_kind,
            "blends keys, which are stored rotated with absolute positions of their own",
            'set cache.positions = "window" or cache.sink_place = "within"',
        )
    if cache.sink_kind == "ema" and cache.dtype != "full":
        raise wrong(
            "cache.dtype",
            cache.dtype,
            'has steps larger than what cache.sink_kind = "ema" adds at a time, so sinks would '
            "never change",
            'use "full" or cache.sink_kind = "fixed"',
        )
    if cache.sink_kind == "adaptive":
        for key, value, only in (
            ("mode", cache.mode, "per_step"),
            ("positions", cache.positions, "absolute"),
            ("sink_place", cache.sink_place, "own"),
            ("on_prompt", cache.on_prompt, "keep"),
        ):
            if value != only:
                raise wrong(
                    f"cache.{key}",
                    value,
                    f'must be {shown(only)} with cache.sink_kind = "adaptive", where only the '
                    f"device knows which frame lies where",
                    'set it so or cache.sink_kind = "fixed"',
                )


def _check_place(cache: CacheSettings) -> None:
    has_reach = cache.sink_place in ("within", "ahead")
    if not has_reach and cache.sink_reach != 0:
        raise wrong(
            "cache.sink_reach",
            cache.sink_reach,
            f'has no effect with cache.sink_place = "{cache.sink_place}"',
            'leave it out or set cache.sink_place = "within"',
        )
    if cache.sink_place == "own":
        return
    if cache.sinks == 0:
        raise wrong(
            "cache.sink_place", cache.sink_place, "needs sinks and cache.sinks is 0", "raise it"
        )
    if cache.positions == "window" and cache.sink_place != "ahead":
        raise wrong(
            "cache.sink_place",
            cache.sink_place,
            'has no effect with cache.positions = "window", where sinks always sit before the ring',
            'use "own" or cache.positions = "absolute"',
        )
    if cache.sink_place == "within":
        check_range("cache.sink_reach", cache.sink_reach, cache.sinks + cache.ring, MAX_REACH)
    elif cache.sink_place == "ahead":
        check_range("cache.sink_reach", cache.sink_reach, 1, MAX_REACH)


def _check_refresh(cache: CacheSettings) -> None:
    if cache.refresh == 0:
        return
    if cache.positions == "window" or cache.sink_place != "own":
        key, value = (
            ("positions", cache.positions)
            if cache.positions == "window"
            else ("sink_place", cache.sink_place)
        )
        raise wrong(
            "cache.refresh",
            cache.refresh,
            f"has no effect with cache.{key} = {shown(value)}, under which positions have no end",
            "set it to 0",
        )
    check_range("cache.refresh", cache.refresh, cache.sinks + cache.ring + 1, MAX_REACH)


def _check_switch(cache: CacheSettings) -> None:
    if cache.on_prompt != "flush" and cache.flush_keeps != 0:
        raise wrong(
            "cache.flush_keeps",
            cache.flush_keeps,
            f'has no effect with cache.on_prompt = "{cache.on_prompt}"',
            'leave it out or set cache.on_prompt = "flush"',
        )
    check_range("cache.flush_keeps", cache.flush_keeps, 0, 1024)
    if cache.on_prompt == "recache" and cache.mode != "clean":
        raise wrong(
            "cache.on_prompt",
            cache.on_prompt,
            f'computes a clean cache anew and cache.mode is "{cache.mode}"',
            'use "flush" or cache.mode = "clean"',
        )
