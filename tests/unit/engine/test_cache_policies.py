"""Every cache policy through the whole engine, against lists that say what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from streamgen.cache.policies import (
    AheadOfChunk,
    BeforeOthers,
    BlendIntoSinks,
    Flush,
    Recache,
    WithinReach,
)
from streamgen.cache.window import Positions
from streamgen.engine.recipe import CacheMode, CachePolicy, Recipe
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from tests.slow_policies import Policy as SlowPolicy
from tests.slow_policies import slow_stream
from tests.small_engine import CHANNELS, NOISE, SIZE, SmallEngine, small_dit, small_recipe, text

CLOSE = {"atol": 2e-5, "rtol": 0}  # float32 sums in another order, through twelve chunks
MODEL = small_dit()
ABSOLUTE, WINDOW = Positions.ABSOLUTE, Positions.WINDOW
CLEAN, PER_STEP, RECOMPUTE = CacheMode.CLEAN, CacheMode.PER_STEP, CacheMode.RECOMPUTE
PROMPTS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 1, 1)  # one a chunk


@dataclass(frozen=True)
class Case:
    recipe: Recipe
    slow: SlowPolicy


def case(
    cache: CachePolicy,
    slow: SlowPolicy,
    *,
    mode: CacheMode = CLEAN,
    positions: Positions = WINDOW,
    sinks: int = 2,
    ring: int = 4,
    chunk: int = 1,
) -> Case:
    recipe = small_recipe(
        mode=mode, sinks=sinks, ring=ring, positions=positions, chunk_frames=chunk, cache=cache
    )
    return Case(recipe, slow)


THRESHOLD = 0.75  # about half of the comparisons on this model are below
CASES = {
    "plain": case(CachePolicy(), SlowPolicy()),
    "plain absolute": case(CachePolicy(), SlowPolicy(), positions=ABSOLUTE, mode=PER_STEP),
    "flush": case(CachePolicy(on_switch=Flush(1)), SlowPolicy(on_prompt="flush", flush_keeps=1)),
    "flush all, per step": case(
        CachePolicy(on_switch=Flush(0)), SlowPolicy(on_prompt="flush"), mode=PER_STEP
    ),
    "flush absolute, chunks of 2": case(
        CachePolicy(on_switch=Flush(1)),
        SlowPolicy(on_prompt="flush", flush_keeps=1),
        positions=ABSOLUTE,
        ring=6,
        chunk=2,
    ),
    "recache": case(CachePolicy(on_switch=Recache()), SlowPolicy(on_prompt="recache")),
    "recache absolute, chunks of 2": case(
        CachePolicy(on_switch=Recache()),
        SlowPolicy(on_prompt="recache"),
        positions=ABSOLUTE,
        ring=6,
        chunk=2,
    ),
    "recache the whole past": case(
        CachePolicy(on_switch=Recache()), SlowPolicy(on_prompt="recache"), ring=20
    ),
    "ema": case(CachePolicy(eviction=BlendIntoSinks(0.8)), SlowPolicy(decay=0.8)),
    "ema within reach, chunks of 2": case(
        CachePolicy(eviction=BlendIntoSinks(0.9), sink_place=WithinReach(9)),
        SlowPolicy(decay=0.9, place="within", reach=9),
        positions=ABSOLUTE,
        sinks=4,
        chunk=2,
    ),
    "before": case(
        CachePolicy(sink_place=BeforeOthers()), SlowPolicy(place="before"), positions=ABSOLUTE
    ),
    "within, per step": case(
        CachePolicy(sink_place=WithinReach(7)),
        SlowPolicy(place="within", reach=7),
        positions=ABSOLUTE,
        mode=PER_STEP,
    ),
    "ahead": case(
        CachePolicy(sink_place=AheadOfChunk(24)),
        SlowPolicy(place="ahead", reach=24),
        positions=ABSOLUTE,
    ),
    "refresh": case(
        CachePolicy(refresh_frames=8), SlowPolicy(refresh=8), positions=ABSOLUTE, mode=PER_STEP
    ),
    "refresh, chunks of 2": case(
        CachePolicy(refresh_frames=10), SlowPolicy(refresh=10), positions=ABSOLUTE, chunk=2
    ),
    "adaptive": case(
        CachePolicy(sink_threshold=THRESHOLD),
        SlowPolicy(threshold=THRESHOLD),
        positions=ABSOLUTE,
        mode=PER_STEP,
        ring=3,
    ),
    "adaptive, set back": case(
        CachePolicy(sink_threshold=THRESHOLD, refresh_frames=7),
        SlowPolicy(threshold=THRESHOLD, refresh=7),
        positions=ABSOLUTE,
        mode=PER_STEP,
        ring=3,
    ),
    "recompute": case(CachePolicy(), SlowPolicy(), mode=RECOMPUTE),
    "recompute, chunks of 2": case(
        CachePolicy(), SlowPolicy(), mode=RECOMPUTE, sinks=1, ring=7, chunk=2
    ),
}


def run(
    recipe: Recipe,
    policy: Policy,
    prompts: Sequence[int] = PROMPTS,
    *,
    neighbours: int = 0,
    max_rows: int = 64,
) -> Tensor:
    """Latents of a session whose prompt is set before each chunk; others keep theirs."""
    rig = SmallEngine(
        policy,
        model=MODEL,
        num_rows=recipe.num_cache_rows * (1 + neighbours),
        num_cells=recipe.sinks + recipe.ring,
        positions=recipe.positions,
        max_rows=max_rows,
        cache=recipe.cache,
        sinks_and_ring=(recipe.sinks, recipe.ring),
    )
    ids = {number: rig.prompt(number) for number in sorted(set(prompts))}
    for number in range(neighbours):
        rig.open(recipe, seed=9 + number, max_chunks=5 + number)
    mine = rig.open(recipe, seed=3, prompt=ids[prompts[0]], max_chunks=len(prompts))
    while not mine.session.has_ended:
        if mine.session.next_chunk < len(prompts):
            rig.engine.set_prompt(mine.session, ids[prompts[mine.session.next_chunk]])
        rig.tick()
    rig.engine.close(mine.session)
    rig.tick(40)
    assert len(rig.slots) == 0
    return torch.cat(mine.latents)


def expected(one: Case) -> Tensor:
    frames = one.recipe.chunk_frames

    def start(chunk: int) -> Tensor:
        return NOISE.noise(3, chunk, 0, (frames, CHANNELS, SIZE, SIZE))

    return slow_stream(
        MODEL, one.recipe, one.slow, seed=3, start=start, text_numbers=PROMPTS, text=text
    )


@pytest.mark.parametrize("name", list(CASES))
def test_a_policy_is_what_its_lists_say(name: str) -> None:
    """Twelve chunks with three changes of prompt, each step and pass: the same latents."""
    one = CASES[name]
    torch.testing.assert_close(run(one.recipe, Sequential()), expected(one), **CLOSE)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("plain")])
def test_a_policy_changes_the_picture(name: str) -> None:
    """So that the equality above compares something: without its policy each stream differs."""
    one = CASES[name]
    plain = replace(one.recipe, cache=CachePolicy())
    if one.recipe.mode is RECOMPUTE:
        plain = replace(plain, mode=CLEAN)
    seen, other = run(one.recipe, Sequential()), run(plain, Sequential())
    assert (seen - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(CASES))
def test_a_policy_does_not_depend_on_the_schedule(name: str) -> None:
    """In a batch, beside two others whose prompts never change, with few rows a forward."""
    recipe = CASES[name].recipe
    alone = run(recipe, Sequential())
    among = run(recipe, StreamBatch(), neighbours=2, max_rows=3)
    torch.testing.assert_close(among, alone, **CLOSE)


def test_setting_the_same_prompt_again_is_no_switch() -> None:
    """`run` sets the prompt before every chunk; with a single prompt nothing is ever flushed."""
    recipe = CASES["flush"].recipe
    plain = replace(recipe, cache=CachePolicy())
    once, again = (run(each, Sequential(), (1,) * 8) for each in (plain, recipe))
    assert torch.equal(once, again)


def test_finished_latents_are_kept_for_one_window_and_let_go() -> None:
    """Recaching needs them; a session that ends or is closed takes them along."""
    recipe = small_recipe(mode=CLEAN, ring=3, cache=CachePolicy(on_switch=Recache()))
    rig = SmallEngine(Sequential(), model=MODEL)
    stream = rig.open(recipe, max_chunks=None)
    while stream.session.next_chunk < 12:
        rig.tick()
        assert sum(len(frames) for frames in rig.slots._finished.values()) <= 4
    assert rig.slots._finished
    rig.engine.close(stream.session)
    rig.tick(2)
    assert not rig.slots._finished
