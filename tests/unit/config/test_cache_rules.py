"""Cache policies that cannot be followed together, or would have no effect, are refused at load."""

import pytest

from streamgen.config.load import load_preset
from streamgen.errors import ConfigError

V2V = "tiny-cpu-v2v"
T2V = "tiny-cpu"
EMA = ("sink_kind=ema", "sink_decay=0.9")
ADAPTIVE = ("sink_kind=adaptive", "sink_threshold=0.2")


@pytest.mark.parametrize(
    ("preset", "settings", "words"),
    [
        (T2V, ["sink_decay=0.9"], 'sink_decay = 0.9 has no effect with cache.sink_kind = "fixed"'),
        (T2V, ["sink_threshold=0.2"], 'has no effect with cache.sink_kind = "fixed"'),
        (T2V, ["sink_kind=ema"], "cache.sink_decay = 0.0 must be above 0 below 1; use 0.999"),
        (T2V, ["sink_kind=ema", "sink_decay=1"], "must be above 0 below 1"),
        (T2V, ["sink_kind=ema", "sink_decay=nan"], "must be above 0 below 1"),
        (T2V, [*EMA, "sinks=0"], "needs sinks and cache.sinks is 0"),
        (T2V, [*EMA, "positions=absolute"], "stored rotated with absolute positions"),
        (V2V, ["sink_kind=adaptive"], "cache.sink_threshold = 0.0 must be above 0 to 1; use 0.2"),
        (V2V, [*ADAPTIVE, "sink_threshold=1.5"], "must be above 0 to 1"),
        (V2V, ADAPTIVE, 'cache.positions = "window" must be "absolute" with cache.sink_kind'),
        (T2V, [*ADAPTIVE, "positions=absolute"], 'cache.mode = "clean" must be "per_step"'),
        (
            V2V,
            [*ADAPTIVE, "positions=absolute", "on_prompt=flush"],
            'cache.on_prompt = "flush" must be "keep"',
        ),
        (T2V, ["sink_place=before"], 'has no effect with cache.positions = "window"'),
        (T2V, ["sink_place=before", "sinks=0", "positions=absolute"], "cache.sinks is 0"),
        (T2V, ["sink_reach=9"], 'sink_reach = 9 has no effect with cache.sink_place = "own"'),
        (
            T2V,
            ["sink_place=within", "positions=absolute", "sink_reach=3"],
            "cache.sink_reach = 3 must be in [4, 100000]; use 4",
        ),
        (T2V, ["sink_place=ahead"], "cache.sink_reach = 0 must be in [1, 100000]; use 1"),
        (T2V, ["refresh=50"], 'has no effect with cache.positions = "window"'),
        (
            T2V,
            ["refresh=50", "positions=absolute", "sink_place=before"],
            'has no effect with cache.sink_place = "before"',
        ),
        (T2V, ["refresh=4", "positions=absolute"], "must be in [5, 100000]; use 5"),
        (T2V, ["refresh=-1", "positions=absolute"], "must be in [5, 100000]; use 5"),
        (T2V, ["flush_keeps=1"], 'has no effect with cache.on_prompt = "keep"'),
        (T2V, ["on_prompt=flush", "flush_keeps=2"], "would forget nothing"),
        (T2V, ["on_prompt=flush", "flush_keeps=-1"], "must be in [0, 1024]; use 0"),
        (V2V, ["on_prompt=recache"], 'cache.mode is "per_step"'),
        (T2V, ["mode=recompute", "positions=absolute"], "whose positions are the window's"),
        (T2V, ["mode=recompute", *EMA], "whose positions are the window's"),
        (T2V, ["mode=recompute", "on_prompt=flush"], 'set it to "keep"'),
        (T2V, ["mode=recompute", "first_chunk=alone"], 'no effect with cache.mode = "recompute"'),
        (T2V, ["mode=joint", *EMA], "whose positions are the window's"),
        (T2V, ["mode=joint", "ring=1"], "cache.ring = 1 does not hold a window of 2 chunks"),
        (V2V, ["mode=joint", "ring=9"], "cannot be followed"),
        (T2V, ["mode=joint", "first_chunk=alone"], "which has no row for each step"),
        (T2V, ["cascade_lag=2"], 'has no effect with cache.mode = "clean", must be 1'),
        (T2V, ["mode=cascaded", "cascade_lag=9"], "must be in [1, 2], the steps of"),
        (V2V, ["mode=cascaded", "cascade_lag=0"], "cache.cascade_lag = 0 must be in [1, "),
        (T2V, ["mode=cascaded", "on_prompt=recache"], 'cache.mode is "cascaded"'),
        (T2V, ["sink_kind=rolling"], 'must be one of "fixed", "ema", "adaptive"'),
        (T2V, [*EMA, "dtype=int8"], "so sinks would never change"),
        (T2V, ["dtype=int2"], 'must be one of "full", "fp8", "int8", "int4"'),
        (T2V, ["sink_place=befor"], 'did you mean "before"?'),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    preset: str, settings: list[str], words: str
) -> None:
    """In one line that names the key, its value, and what to do."""
    with pytest.raises(ConfigError) as refused:
        load_preset(preset, [f"cache.{setting}" for setting in settings])
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["cache.mode=recompute", "cache.ring=2"], "does not hold a chunk of denoise.chunk_frames"),
        (
            [*(f"cache.{one}" for one in ADAPTIVE), "cache.positions=absolute"],
            "compares single frames and denoise.chunk_frames is 3",
        ),
    ],
)
def test_settings_that_chunks_cannot_follow_are_refused(settings: list[str], words: str) -> None:
    preset = T2V if "cache.mode=recompute" in settings else V2V
    chunks = ["denoise.chunk_frames=3", "cache.sinks=3", "cache.ring=6"]
    with pytest.raises(ConfigError, match=r"denoise\.chunk_frames") as refused:
        load_preset(preset, [*chunks, *settings])
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        (T2V, EMA),
        (T2V, [*EMA, "positions=absolute", "sink_place=within", "sink_reach=9"]),
        (V2V, [*ADAPTIVE, "positions=absolute", "refresh=50"]),
        (T2V, ["positions=absolute", "sink_place=before"]),
        (T2V, ["sink_place=ahead", "sink_reach=10"]),
        (T2V, ["on_prompt=flush"]),
        (V2V, ["on_prompt=flush", "flush_keeps=1"]),
        (T2V, ["on_prompt=recache"]),
        (T2V, ["mode=recompute", "sinks=1", "ring=5"]),
    ],
)
def test_policies_that_go_together_load(preset: str, settings: list[str]) -> None:
    load_preset(preset, [f"cache.{setting}" for setting in settings])
