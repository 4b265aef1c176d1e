"""`joint` mode through the whole engine, against lists that say what Rolling Forcing computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from streamgen.cache.window import Positions
from streamgen.engine.recipe import CacheMode, Recipe, rungs_of
from streamgen.engine.start import NoiseStarter, Opening
from streamgen.engine.terms import ServiceTerms
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from streamgen.scheduling.service import Quality
from tests.slow_joint import CleanKV, slow_joint_stream
from tests.small_engine import (
    CHANNELS,
    GEOMETRY,
    NOISE,
    SIZE,
    SmallEngine,
    Stream,
    small_dit,
    small_recipe,
    text,
)

CLOSE = {"atol": 2e-5, "rtol": 0}  # float32 sums in another order, through a chain of chunks
MODEL = small_dit()
PROMPTS = (1, 1, 1, 1, 2, 2, 3, 3, 3, 1)  # one a chunk


def joint(*, steps: int, chunk: int, sinks: int, ring: int) -> Recipe:
    return small_recipe(
        steps=steps,
        mode=CacheMode.JOINT,
        sinks=sinks,
        ring=ring,
        positions=Positions.WINDOW,
        chunk_frames=chunk,
    )


CASES = {
    "as published, but for a step": joint(steps=4, chunk=3, sinks=3, ring=15),
    "three steps": joint(steps=3, chunk=1, sinks=1, ring=5),
    "a longer look back": joint(steps=2, chunk=2, sinks=2, ring=8),
    "no room before the window": joint(steps=3, chunk=2, sinks=2, ring=6),
    "no sinks": joint(steps=3, chunk=1, sinks=0, ring=4),
    "more sinks than a chunk has frames": joint(steps=2, chunk=2, sinks=3, ring=6),
    "one step": joint(steps=1, chunk=2, sinks=2, ring=4),
}


@dataclass
class Watched:
    rig: SmallEngine
    stream: Stream

    @property
    def latents(self) -> Tensor:
        return torch.cat(self.stream.latents)


def run(
    recipe: Recipe, policy: Policy, *, neighbours: tuple[Recipe, ...] = (), max_rows: int = 64
) -> Watched:
    """A session whose prompt is set before each chunk, to its end; others keep theirs."""
    rig = SmallEngine(
        policy,
        model=MODEL,
        num_rows=sum(each.num_cache_rows for each in (recipe, *neighbours)),
        num_cells=max(each.sinks + each.ring for each in (recipe, *neighbours)),
        positions=recipe.positions,
        max_rows=max_rows,
    )
    ids = {number: rig.prompt(number) for number in sorted(set(PROMPTS))}
    for number, other in enumerate(neighbours):
        rig.open(other, seed=9 + number, max_chunks=5 + number)
    mine = rig.open(recipe, seed=3, prompt=ids[PROMPTS[0]], max_chunks=len(PROMPTS))
    while not mine.session.has_ended:
        if mine.session.next_chunk < len(PROMPTS):
            rig.engine.set_prompt(mine.session, ids[PROMPTS[mine.session.next_chunk]])
        rig.tick()
        assert rig.clock.now() < 1, "a session with work to do waits for ever"
    return Watched(rig, mine)


def expected(recipe: Recipe) -> tuple[Tensor, list[CleanKV]]:
    return slow_joint_stream(
        MODEL, recipe, seed=3, start=start(recipe), text_numbers=PROMPTS, text=text
    )


def start(recipe: Recipe):
    return lambda chunk: NOISE.noise(3, chunk, 0, (recipe.num_frames(chunk), CHANNELS, SIZE, SIZE))


@pytest.mark.parametrize("name", list(CASES))
def test_a_stream_is_what_its_lists_say(name: str) -> None:
    """Windows that grow, roll and shrink, three changes of prompt among them: the same latents,
    and in the history the same clean keys and values."""
    recipe = CASES[name]
    watched = run(recipe, Sequential())
    latents, layers = expected(recipe)
    torch.testing.assert_close(watched.latents, latents, **CLOSE)
    history = watched.stream.session.windows[1].frames()
    assert len(history) == min(recipe.sinks + recipe.ring, latents.shape[0])
    row = watched.stream.session.cache_rows[1]
    for layer, kept in enumerate(layers):
        for frame in history:
            cell = watched.rig.cache.read_cells(
                row, [frame % (recipe.sinks + recipe.ring)], slice(layer, layer + 1)
            )
            for ours, theirs in zip(cell[0, :, 0], kept.clean[frame], strict=True):
                torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("name", list(CASES))
def test_a_stream_does_not_depend_on_the_schedule(name: str) -> None:
    """In a batch, beside another of its kind and one in `clean` mode, with few rows a forward."""
    recipe = CASES[name]
    other = replace(recipe, mode=CacheMode.CLEAN)
    alone = run(recipe, Sequential()).latents
    among = run(recipe, StreamBatch(), neighbours=(recipe, other), max_rows=2).latents
    torch.testing.assert_close(among, alone, **CLOSE)


def test_the_window_is_seen() -> None:
    """So that the equalities above compare something: without sinks, with a shorter look back or
    with chunks one by one each stream differs."""
    recipe = joint(steps=3, chunk=1, sinks=1, ring=5)
    latents = run(recipe, Sequential()).latents
    for other in (
        replace(recipe, sinks=0),
        replace(recipe, ring=4),
        replace(recipe, mode=CacheMode.CLEAN),
    ):
        assert (run(other, Sequential()).latents - latents).abs().max() > 1e-3


def test_a_stream_goes_on_from_given_frames() -> None:
    """Their chunks walk down the ladder as noisy versions of what they are."""
    plain = joint(steps=3, chunk=2, sinks=2, ring=8)
    opening = Opening(NOISE.noise(5, 0, 0, (3, CHANNELS, SIZE, SIZE)), is_shown=True)
    recipe = plain.opening_with(opening.num_frames)
    rig = SmallEngine(
        Sequential(), model=MODEL, num_rows=2, num_cells=10, positions=Positions.WINDOW
    )
    starter = NoiseStarter(recipe, GEOMETRY, NOISE, seed=3, max_chunks=7, opening=opening)
    stream = rig.open(recipe, seed=3, starter=starter)
    rig.finish(stream)
    given = {0: opening.latents_FCHW[:1], 1: opening.latents_FCHW[1:]}
    latents, _ = slow_joint_stream(
        MODEL,
        recipe,
        seed=3,
        start=start(recipe),
        text_numbers=(1,) * 7,
        text=text,
        given=given,
    )
    assert torch.equal(torch.cat(stream.latents)[:3], opening.latents_FCHW)
    torch.testing.assert_close(torch.cat(stream.latents), latents, **CLOSE)


def test_a_session_takes_two_rows_and_gives_them_back() -> None:
    recipe = joint(steps=3, chunk=1, sinks=1, ring=4)
    rig = SmallEngine(
        StreamBatch(), model=MODEL, num_rows=4, num_cells=5, positions=Positions.WINDOW
    )
    streams = [rig.open(recipe, seed=seed, max_chunks=None) for seed in (1, 2)]
    assert rig.engine.num_free_rows == 0
    rig.tick(23)
    for stream in streams:
        assert len(stream.session.chunks) <= 3
        rig.engine.close(stream.session)
    rig.tick(2)
    assert (rig.engine.num_free_rows, len(rig.slots)) == (4, 0)


def test_first_pictures_come_after_a_ladder_then_every_second_batch_has_some() -> None:
    """n windows to the first chunk; then a window and a clean pass for each further one."""
    recipe = joint(steps=4, chunk=1, sinks=1, ring=5)
    rig = SmallEngine(
        Sequential(), model=MODEL, num_rows=2, num_cells=6, positions=Positions.WINDOW
    )
    stream = rig.open(recipe, max_chunks=None)
    seen: list[int] = []
    for _ in range(16):
        rig.tick()
        seen.append(len(stream.latents))
    assert seen == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_another_number_of_steps_begins_when_the_windows_have_run_out() -> None:
    """Chunks on the ladder end on it, in windows that shrink; then longer ones grow again."""
    recipe = joint(steps=2, chunk=1, sinks=1, ring=4)
    best = Quality(2)
    rig = SmallEngine(
        Sequential(), model=MODEL, num_rows=2, num_cells=5, positions=Positions.WINDOW
    )
    stream = rig.open(recipe, max_chunks=12)
    session = stream.session
    session.rungs = rungs_of(recipe, (best, replace(best, num_steps=1)))
    rig.tick(9)
    session.wanted_rung = 1
    before = len(stream.latents)
    while session.rung != 1:
        rig.tick()
    assert len(stream.latents) == session.chunks[0].chunk > before
    rig.finish(stream)
    assert len(stream.latents) == 12
    assert session.terms == ServiceTerms()
