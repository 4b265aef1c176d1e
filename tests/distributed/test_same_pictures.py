"""The picture does not depend on how many processes draw it, nor on how they divide the work."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from streamgen.cache.policies import Flush, Recache
from streamgen.cache.window import Positions
from streamgen.diffusion.guidance import Guidance, GuidanceMode
from streamgen.engine.recipe import CacheMode, CachePolicy, Recipe
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from tests.distributed.small_ranks import NUM_BLOCKS, NUM_ROWS, PipelinedEngine, pipelined
from tests.small_engine import SmallEngine, Stream, VideoLikeStarter, small_dit, small_recipe

CHUNKS = 7
SWITCH = 3  # chunk that another prompt begins with


@dataclass(frozen=True)
class Case:
    split: str
    num_ranks: int
    recipe: Recipe
    positions: Positions = field(default=Positions.ABSOLUTE)

    def __str__(self) -> str:
        switch = type(self.recipe.cache.on_switch).__name__
        return f"{self.split}-{self.num_ranks}-{self.recipe.mode}-{switch}"


CASES = [
    Case("layers", 2, small_recipe(steps=2, mode=CacheMode.PER_STEP)),
    Case(
        "layers",
        3,
        small_recipe(steps=2, mode=CacheMode.CLEAN, positions=Positions.WINDOW),
        Positions.WINDOW,
    ),
    Case(
        "steps",
        3,
        small_recipe(
            steps=3,
            mode=CacheMode.PER_STEP,
            first_chunk_is_alone=True,
            chunk_frames=1,
            first_chunk_frames=2,
        ),
    ),
    Case(
        "steps",
        2,
        small_recipe(steps=2, mode=CacheMode.CLEAN, guidance=Guidance(GuidanceMode.FULL, 2.0, 1.0)),
    ),
    Case(
        "2+1",
        3,
        small_recipe(
            steps=2,
            mode=CacheMode.PER_STEP,
            guidance=Guidance(GuidanceMode.INITIALIZE, 1.5, 1.0),
        ),
    ),
    Case("1+3", 4, small_recipe(steps=3, mode=CacheMode.CLEAN)),
    Case(
        "steps",
        2,
        small_recipe(steps=2, mode=CacheMode.CLEAN, cache=CachePolicy(on_switch=Flush(1))),
    ),
    Case(
        "layers",
        2,
        small_recipe(steps=2, mode=CacheMode.CLEAN, cache=CachePolicy(on_switch=Recache())),
    ),
    Case("steps", 2, small_recipe(steps=2, mode=CacheMode.RECOMPUTE)),
    Case(
        "layers",
        2,
        small_recipe(
            steps=2, mode=CacheMode.JOINT, ring=4, positions=Positions.WINDOW, chunk_frames=2
        ),
        Positions.WINDOW,
    ),
    Case("layers", 4, small_recipe(steps=3, mode=CacheMode.CASCADED)),
    Case("steps", 4, small_recipe(steps=3, mode=CacheMode.CASCADED)),
    Case(
        "2+1",
        3,
        small_recipe(
            steps=3, mode=CacheMode.CASCADED, lag=2, guidance=Guidance(GuidanceMode.FULL, 2.0)
        ),
    ),
]


def play(engine: SmallEngine, recipe: Recipe) -> list[list[Tensor]]:
    """Text to video with a prompt switch in its midst, and beside it what an input makes."""
    words = engine.open(recipe, seed=1, max_chunks=CHUNKS)
    video = engine.open(recipe, seed=2, starter=VideoLikeStarter(recipe, seed=2, max_chunks=CHUNKS))
    _switch_at(engine, words)
    engine.finish(words, video)
    return [words.latents, video.latents]


def _switch_at(engine: SmallEngine, stream: Stream) -> None:
    while stream.session.next_chunk < SWITCH:
        engine.tick()
    engine.engine.set_prompt(stream.session, engine.prompt(3))


def local_engine(case: Case, policy: Policy) -> SmallEngine:
    return SmallEngine(
        policy,
        model=small_dit(num_blocks=NUM_BLOCKS),
        num_rows=NUM_ROWS,
        positions=case.positions,
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_streams_are_the_same_as_in_one_process(case: Case) -> None:
    """Both splits and the mix, both cache modes, words and video, a new prompt on the way.

    A rank's batches have other shapes than one process's, so float32 may differ in its last bits.
    """
    wanted = play(local_engine(case, StreamBatch()), case.recipe)
    with pipelined(
        case.split,
        case.num_ranks,
        num_passes=case.recipe.num_passes,
        positions=case.positions,
    ) as executor:
        drawn = play(PipelinedEngine(StreamBatch(), executor), case.recipe)
    for ours, theirs in zip(drawn, wanted, strict=True):
        torch.testing.assert_close(
            torch.stack(ours[1:]), torch.stack(theirs[1:]), rtol=0, atol=1e-5
        )
        torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-5)


def test_bits_are_the_same_where_batches_are() -> None:
    """One session under Sequential makes the same batches whatever runs them."""
    case = Case("layers", 2, small_recipe(steps=2, mode=CacheMode.CLEAN))
    drawn: list[list[Tensor]] = []
    local = local_engine(case, Sequential())
    with pipelined(case.split, case.num_ranks, num_passes=case.recipe.num_passes) as executor:
        for engine in (local, PipelinedEngine(Sequential(), executor)):
            stream = engine.open(case.recipe, seed=4, max_chunks=CHUNKS)
            _switch_at(engine, stream)
            engine.finish(stream)
            drawn.append(stream.latents)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*drawn, strict=True))


def test_sessions_come_and_go_on_ranks_that_stay() -> None:
    """What a closed session leaves in caches and slots does not reach the next one."""
    recipe = small_recipe(steps=2, mode=CacheMode.PER_STEP)
    case = Case("steps", 2, recipe)
    local = local_engine(case, StreamBatch())
    wanted = local.open(recipe, seed=9, max_chunks=4)
    local.finish(wanted)
    with pipelined("steps", 2, num_passes=recipe.num_passes) as executor:
        engine = PipelinedEngine(StreamBatch(), executor)
        for seed in range(5):  # more than there are rows for
            stream = engine.open(recipe, seed=seed)
            engine.tick(3)
            engine.engine.close(stream.session)
        last = engine.open(recipe, seed=9, max_chunks=4)
        engine.finish(last)
    torch.testing.assert_close(
        torch.stack(last.latents), torch.stack(wanted.latents), rtol=0, atol=1e-5
    )
