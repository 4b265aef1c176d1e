"""Passes that run through fewer blocks: which ones, what they leave, and that no schedule shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streamgen.cache.window import Positions
from streamgen.engine.effort import ALL_BLOCKS, WHOLE, Effort, Savings
from streamgen.engine.forward import CallAgain, Replayed
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.scheduling.policy import Sequential, StreamBatch
from tests.small_engine import SmallEngine, Stream, small_dit, small_recipe

NUM_BLOCKS = 4
MODEL = small_dit(num_blocks=NUM_BLOCKS)
CLEAN = small_recipe(steps=4, mode=CacheMode.CLEAN, positions=Positions.WINDOW)
SAVINGS = {
    "nothing": Savings(),
    "half a clean pass": Savings(clean_blocks=2),
    "no clean pass": Savings(clean_blocks=0),
    "one step reuses": Savings(reuse_steps=(2,), reuse_blocks=(1, 3)),
    "two steps reuse": Savings(reuse_steps=(2, 3), reuse_blocks=(0, 4)),
    "all of it": Savings(clean_blocks=1, reuse_steps=(1, 3), reuse_blocks=(2, 4)),
}


def play(
    savings: Savings,
    *,
    rig: SmallEngine | None = None,
    seeds: tuple[int, ...] = (3,),
    recipe: Recipe = CLEAN,
) -> list[Tensor]:
    """Latents of one stream for each seed, side by side on one engine."""
    rig = rig or new_rig()
    streams: list[Stream] = [
        rig.open(replace(recipe, savings=savings), seed=seed, max_chunks=6) for seed in seeds
    ]
    rig.finish(*streams)
    return [torch.cat(stream.latents) for stream in streams]


def new_rig(*, is_sequential: bool = False, runner: Replayed | None = None) -> SmallEngine:
    policy = Sequential() if is_sequential else StreamBatch()
    return SmallEngine(
        policy, model=MODEL, positions=Positions.WINDOW, runner=runner, residual_tokens=4
    )


def test_efforts_are_a_function_of_the_step() -> None:
    savings = Savings(clean_blocks=1, reuse_steps=(2, 3), reuse_blocks=(1, 3))
    assert [savings.effort(step, 4) for step in range(5)] == [
        WHOLE,
        Effort(first=1, last=3),
        Effort(first=1, last=3, reuses=True),
        Effort(first=1, last=3, reuses=True),
        Effort(stop=1),
    ]
    assert all(Savings().effort(step, 4) == WHOLE for step in range(5))


def test_a_shorter_ladder_reuses_at_the_levels_that_it_kept() -> None:
    savings = Savings(reuse_steps=(2, 3), reuse_blocks=(1, 3))
    assert savings.on_levels((0, 2)).reuse_steps == (1,)
    assert savings.on_levels((0,)) == Savings()
    assert replace(CLEAN, savings=savings).with_steps(2).savings.reuse_steps == (1,)


@pytest.mark.parametrize("name", [name for name in SAVINGS if name != "nothing"])
def test_saving_work_changes_pictures_a_little(name: str) -> None:
    """Not at all would mean that nothing was left out."""
    found, whole = play(SAVINGS[name])[0], play(Savings())[0]
    assert 0 < float((found - whole).norm() / whole.norm()) < 0.6


def test_all_blocks_in_the_clean_pass_are_no_saving() -> None:
    assert torch.equal(play(Savings(clean_blocks=NUM_BLOCKS))[0], play(Savings())[0])


@pytest.mark.parametrize("name", SAVINGS)
def test_the_schedule_does_not_show_where_work_is_saved(name: str) -> None:
    """Alone, beside others, one after the other: the same pictures up to the order of sums."""
    seeds = (3, 4, 5)
    alone = [play(SAVINGS[name], seeds=(seed,))[0] for seed in seeds]
    for is_sequential in (False, True):
        together = play(SAVINGS[name], rig=new_rig(is_sequential=is_sequential), seeds=seeds)
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SAVINGS)
def test_recorded_forwards_save_the_same_work(name: str) -> None:
    """A recording is of one effort: a replay neither runs what is left out nor leaves out more."""
    replayed = play(SAVINGS[name], rig=new_rig(runner=Replayed(CallAgain())), seeds=(3, 4))
    written = play(SAVINGS[name], rig=new_rig(), seeds=(3, 4))
    for one, other in zip(replayed, written, strict=True):
        assert torch.equal(one, other)


def test_blocks_that_are_left_out_do_not_run() -> None:
    """Counted: a step that reuses two of four runs two, a reduced clean pass as many as it says."""
    ran: list[int] = []
    model = small_dit(num_blocks=NUM_BLOCKS)
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    rig = SmallEngine(Sequential(), model=model, positions=Positions.WINDOW, residual_tokens=4)
    savings = Savings(clean_blocks=1, reuse_steps=(2,), reuse_blocks=(1, 3))
    stream = rig.open(replace(CLEAN, savings=savings), max_chunks=1)
    rig.finish(stream)
    assert ran == [*range(4), *range(4), 0, 3, *range(4), 0]


def test_savings_are_off_by_default() -> None:
    assert Savings() == Savings(ALL_BLOCKS, (), (0, 0))
    assert CLEAN.savings == Savings()
    assert CLEAN.num_passes == 5
    assert replace(CLEAN, savings=Savings(clean_blocks=0)).num_passes == 4
