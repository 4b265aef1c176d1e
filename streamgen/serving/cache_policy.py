"""What the settings of [cache] mean: sinks, and what a new prompt does. Only the composition root
asks."""

from __future__ import annotations

from streamgen.cache.policies import (
    FORGET,
    KEEP_ALL,
    OWN_PLACE,
    AheadOfChunk,
    BeforeOthers,
    BlendIntoSinks,
    Flush,
    OnSwitch,
    Recache,
    SinkPlace,
    WithinReach,
)
from streamgen.config.schema import CacheConfig
from streamgen.engine.recipe import CachePolicy


def cache_policy(cache: CacheConfig) -> CachePolicy:
    """What sinks are, where they are said to be, and what a new prompt does."""
    return CachePolicy(
        sink_place=_sink_place(cache),
        eviction=BlendIntoSinks(cache.sink_decay) if cache.sink_kind == "ema" else FORGET,
        on_switch=_on_switch(cache),
        refresh_frames=cache.refresh,
        sink_threshold=cache.sink_threshold if cache.sink_kind == "adaptive" else None,
    )


def _sink_place(cache: CacheConfig) -> SinkPlace:
    match cache.sink_place:
        case "own":
            return OWN_PLACE
        case "before":
            return BeforeOthers()
        case "within":
            return WithinReach(cache.sink_reach)
        case "ahead":
            return AheadOfChunk(cache.sink_reach)


def _on_switch(cache: CacheConfig) -> OnSwitch:
    match cache.on_prompt:
        case "keep":
            return KEEP_ALL
        case "flush":
            return Flush(cache.flush_keeps)
        case "recache":
            return Recache()
