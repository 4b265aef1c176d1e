"""Chunks that read what is not clean yet, against a definition that keeps all that was written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamgen.cache.window import Positions
from streamgen.clock import SimulatedClock
from streamgen.diffusion.guidance import Guidance, GuidanceMode
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from tests.slow_rollout import slow_cascade
from tests.small_engine import SmallEngine, VideoLikeStarter, noise_starter, small_recipe, text

NUM_CHUNKS = 9
SWITCH = 4
CLOSE = {"atol": 2e-5, "rtol": 0}  # float32 sums in another order, through nine chunks
CASES = {
    "four steps": small_recipe(steps=4, mode=CacheMode.CASCADED, ring=6),
    "a lag of two": small_recipe(steps=4, mode=CacheMode.CASCADED, ring=4, lag=2),
    "a short window, chunks of two": small_recipe(
        steps=3,
        mode=CacheMode.CASCADED,
        ring=4,
        sinks=2,
        chunk_frames=2,
        positions=Positions.WINDOW,
    ),
    "guided": small_recipe(
        steps=2, mode=CacheMode.CASCADED, guidance=Guidance(GuidanceMode.FULL, 2.0)
    ),
    "one step": small_recipe(steps=1, mode=CacheMode.CASCADED),
}


def starter_of(recipe: Recipe, has_input: bool):
    make = VideoLikeStarter if has_input else noise_starter
    return make(recipe, seed=5, max_chunks=NUM_CHUNKS)


def drawn(recipe: Recipe, policy: Policy, *, has_input: bool = False) -> torch.Tensor:
    rig = SmallEngine(policy, num_rows=12, positions=recipe.positions)
    stream = rig.open(recipe, seed=5, starter=starter_of(recipe, has_input))
    while stream.session.next_chunk < SWITCH:
        rig.tick()
    rig.engine.set_prompt(stream.session, rig.prompt(3))
    rig.finish(stream)
    return torch.cat(stream.latents)


@pytest.mark.parametrize("has_input", [False, True], ids=["words", "video"])
@pytest.mark.parametrize("recipe", CASES.values(), ids=CASES.keys())
def test_a_chunk_reads_each_earlier_one_as_fresh_as_the_lag_allows(
    recipe: Recipe, has_input: bool
) -> None:
    """Under both policies, with a new prompt on the way: what the definition says."""
    rig = SmallEngine(StreamBatch())
    expected = slow_cascade(
        rig.model,
        recipe,
        seed=5,
        start=starter_of(recipe, has_input).start,
        num_chunks=NUM_CHUNKS,
        text_of=lambda chunk: text(1 if chunk < SWITCH else 3),
        negative_text=text(0),
    )
    for policy in (StreamBatch(), Sequential()):
        torch.testing.assert_close(
            drawn(recipe, policy, has_input=has_input), torch.cat(expected), **CLOSE
        )


def test_a_lag_of_all_steps_is_the_clean_cache() -> None:
    """Every earlier chunk has been through its last pass then: the two modes mean the same."""
    clean = small_recipe(steps=3, mode=CacheMode.CLEAN)
    cascaded = replace(clean, mode=CacheMode.CASCADED, lag=3)
    assert torch.equal(drawn(cascaded, Sequential()), drawn(clean, Sequential()))


def test_a_smaller_lag_reads_something_else() -> None:
    """So that the tests above compare something."""
    recipe = small_recipe(steps=3, mode=CacheMode.CASCADED)
    seen = [drawn(replace(recipe, lag=lag), Sequential()) for lag in (1, 2, 3)]
    seen.append(drawn(replace(recipe, mode=CacheMode.PER_STEP), Sequential()))
    for index, one in enumerate(seen):
        for other in seen[:index]:
            assert (one - other).abs().max() > 3e-4  # CLOSE is 2e-5


@pytest.mark.parametrize(("lag", "chunks"), [(1, 3), (2, 2), (4, 1)])
def test_chunks_overlap_as_much_as_their_lag_allows(lag: int, chunks: int) -> None:
    """Five passes, each chunk lag + 1 ticks behind the one before it."""
    recipe = small_recipe(steps=4, mode=CacheMode.CASCADED, ring=6, lag=lag)
    rig = SmallEngine(StreamBatch())
    stream = rig.open(recipe, seed=1)
    seen: list[int] = []
    for _ in range(40):
        rig.tick()
        seen.append(len(stream.session.chunks))
    assert max(seen[20:]) == recipe.max_in_flight == chunks
    assert isinstance(rig.clock, SimulatedClock)
