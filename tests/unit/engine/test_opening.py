"""Streams that go on from given latents: a picture, a clip, the end of another stream.

Legend: F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streamgen.cache.window import Positions
from streamgen.engine.batch import Started
from streamgen.engine.past import PastLatents
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.start import NoiseStarter, Opening
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from tests.slow_rollout import SlowRow
from tests.small_engine import GEOMETRY, NOISE, SmallEngine, Stream, small_recipe, text

NUM_CHUNKS = 7


def given_latents(num_frames: int) -> Tensor:
    return NOISE.noise(77, 0, 0, GEOMETRY.latent_shape(num_frames))


def open_with(rig: SmallEngine, recipe: Recipe, opening: Opening, *, seed: int = 3) -> Stream:
    recipe = recipe.opening_with(opening.num_frames)
    starter = NoiseStarter(
        recipe, GEOMETRY, NOISE, seed=seed, max_chunks=NUM_CHUNKS, opening=opening
    )
    return rig.open(recipe, seed=seed, starter=starter)


@pytest.mark.parametrize("mode", list(CacheMode))
@pytest.mark.parametrize("num_given", [1, 2, 5])
def test_what_is_given_comes_out_and_what_follows_does_not_depend_on_the_schedule(
    mode: CacheMode, num_given: int
) -> None:
    """Given chunks end as they were given; the rest is the same under either policy and beside a
    neighbour that was given nothing."""
    recipe = small_recipe(steps=3, mode=mode, chunk_frames=2, sinks=2, ring=4)
    opening = Opening(given_latents(num_given), is_shown=True)
    outcomes: list[Tensor] = []
    policies: tuple[Policy, ...] = (StreamBatch(), Sequential())
    for policy in policies:
        rig = SmallEngine(policy, positions=recipe.positions)
        stream = open_with(rig, recipe, opening)
        neighbour = rig.open(recipe, seed=9, max_chunks=3)
        rig.finish(stream, neighbour)
        outcomes.append(torch.cat(stream.latents))
    torch.testing.assert_close(outcomes[0], outcomes[1], atol=1e-5, rtol=0)
    assert torch.equal(outcomes[0][:num_given], opening.latents_FCHW)
    rig = SmallEngine(StreamBatch(), positions=recipe.positions)
    unopened = rig.open(recipe.opening_with(num_given), seed=3, max_chunks=NUM_CHUNKS)
    rig.finish(unopened)
    following = torch.cat(unopened.latents)[num_given:]
    assert not torch.allclose(outcomes[0][num_given:], following, atol=1e-3)


def test_the_cache_holds_the_keys_of_what_was_given() -> None:
    """In `clean` mode exactly what one plain forward a chunk at the context level would write."""
    recipe = small_recipe(
        mode=CacheMode.CLEAN, positions=Positions.WINDOW, sinks=1, ring=3
    ).opening_with(3)
    opening = Opening(given_latents(3), is_shown=True)
    rig = SmallEngine(StreamBatch(), positions=Positions.WINDOW)
    starter = NoiseStarter(recipe, GEOMETRY, NOISE, seed=3, max_chunks=3, opening=opening)
    rig.finish(rig.open(recipe, seed=3, starter=starter))
    oracle = SlowRow(rig.model, recipe)
    for frame in range(3):
        oracle.forward(
            opening.latents_FCHW[frame : frame + 1],
            timestep=0.0,
            text_MD=text(1),
            first_frame=frame,
        )
    stored = rig.cache.snapshot(0, 3)
    for index, layer in enumerate(oracle.layers):
        torch.testing.assert_close(stored[index, 0], torch.cat(layer.keys), atol=1e-5, rtol=0)
        torch.testing.assert_close(stored[index, 1], torch.cat(layer.values), atol=1e-5, rtol=0)


def test_a_hidden_opening_shows_nothing_and_time_begins_behind_it() -> None:
    recipe = small_recipe(chunk_frames=2, sinks=2, ring=4).opening_with(3)
    opening = Opening(given_latents(3), is_shown=False)
    starter = NoiseStarter(recipe, GEOMETRY, NOISE, seed=0, max_chunks=None, opening=opening)
    started: list[Started] = [starter.start(chunk) for chunk in range(4)]
    assert [each.num_frames for each in started] == [0, 0, 2, 2]
    assert [each.pts_s for each in started] == [0.0, 0.0, 0.0, 2 / GEOMETRY.fps]
    assert [each.given_FCHW is None for each in started] == [False, False, True, True]


@pytest.mark.parametrize(
    ("num_frames", "num_hidden", "expected"),
    [(1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 2, 4), (5, 2, 5)],
)
def test_chunks_are_counted_so_that_enough_is_shown(
    num_frames: int, num_hidden: int, expected: int
) -> None:
    recipe = replace(small_recipe(chunk_frames=2), first_chunk_frames=1)
    assert GEOMETRY.num_chunks(recipe, num_frames, num_hidden=num_hidden) == expected


@pytest.mark.parametrize("num_frames", [0, 1, 3, 20])
def test_the_past_is_the_first_frames_and_the_newest(num_frames: int) -> None:
    past = PastLatents(sinks=2, ring=3)
    frames = given_latents(max(num_frames, 1))[:num_frames]
    for chunk_FCHW in frames.split(2):
        past.add(chunk_FCHW)
    kept = [*range(min(2, num_frames)), *range(max(2, num_frames - 3), num_frames)]
    assert len(past.frames()) == len(kept)
    assert all(torch.equal(frames[k], f) for k, f in zip(kept, past.frames(), strict=True))


def test_a_session_keeps_what_its_next_chunk_looks_back_on() -> None:
    rig = SmallEngine(StreamBatch())
    stream = rig.open(small_recipe(steps=2, sinks=1, ring=3), max_chunks=9)
    rig.finish(stream)
    made = torch.cat(stream.latents)
    assert torch.equal(torch.stack(stream.session.past.frames()), made[[0, 6, 7, 8]])
