"""Blocks move to other ranks while streams run, and nobody sees it in the pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.parallel.partition import imbalance
from streamgen.scheduling.policy import StreamBatch
from tests.distributed.small_ranks import NUM_BLOCKS, NUM_ROWS, PipelinedEngine, pipelined
from tests.small_engine import SmallEngine, VideoLikeStarter, small_dit, small_recipe

CHUNKS = 40
SWITCH = 18  # chunk that another prompt begins with: about when blocks move


def play(engine: SmallEngine, recipe: Recipe) -> list[list[Tensor]]:
    words = engine.open(recipe, seed=1, max_chunks=CHUNKS)
    video = engine.open(recipe, seed=2, starter=VideoLikeStarter(recipe, seed=2, max_chunks=CHUNKS))
    while words.session.next_chunk < SWITCH:
        engine.tick()
    engine.engine.set_prompt(words.session, engine.prompt(3))
    engine.finish(words, video)
    return [words.latents, video.latents]


@pytest.mark.parametrize(
    ("split", "block_s", "mode"),
    [
        ("layers", (2.0, 1.0), CacheMode.PER_STEP),
        ("layers", (1.0, 3.0), CacheMode.CASCADED),
        ("3+1", (1.0, 1.0, 4.0, 1.0), CacheMode.CLEAN),
    ],
)
def test_a_slow_rank_gives_blocks_away_and_pictures_stay_the_same(
    split: str, block_s: tuple[float, ...], mode: CacheMode
) -> None:
    """Two streams of 40 chunks with a prompt switch: every chunk comes out once, equal to one
    process's, though blocks and cache rows have gone over on the way."""
    recipe = small_recipe(steps=2, mode=mode)
    local = SmallEngine(StreamBatch(), model=small_dit(num_blocks=NUM_BLOCKS), num_rows=NUM_ROWS)
    wanted = play(local, recipe)
    with pipelined(split, len(block_s), num_passes=recipe.num_passes, block_s=block_s) as executor:
        before = executor.layout
        drawn = play(PipelinedEngine(StreamBatch(), executor), recipe)
        after = executor.layout
    assert executor.num_moves >= 1
    assert executor.num_restarts == 0
    ranks = after.groups[0].ranks
    seconds = [
        [len(layout.blocks(rank)) * block_s[rank] for rank in ranks] for layout in (before, after)
    ]
    assert imbalance(seconds[1]) < imbalance(seconds[0])
    for ours, theirs in zip(drawn, wanted, strict=True):
        torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=0, atol=1e-5)
