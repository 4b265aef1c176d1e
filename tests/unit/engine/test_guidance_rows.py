"""Guidance as rows of a batch, against the formulas written out by hand."""

from __future__ import annotations

import pytest
import torch

from streamgen.cache.window import Positions
from streamgen.diffusion.guidance import Guidance, GuidanceMode
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.models.base import Prediction
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from tests.slow_rollout import slow_rollout
from tests.small_engine import (
    SmallEngine,
    VideoLikeStarter,
    noise_starter,
    small_dit,
    small_recipe,
    text,
)

NUM_CHUNKS = 5
# Rows share forwards and attention is fused here, not there: float32 noise, after five chunks.
CLOSE = {"atol": 1e-5, "rtol": 0}
FULL = Guidance(GuidanceMode.FULL, 3.0)
INITIALIZE = Guidance(GuidanceMode.INITIALIZE, 2.5, 0.8)
SELF = Guidance(GuidanceMode.SELF, 1.7, 0.9)
MODES = [CacheMode.PER_STEP, CacheMode.CLEAN]


def starter_of(recipe: Recipe, has_input: bool):
    if has_input:
        return VideoLikeStarter(recipe, seed=5, max_chunks=NUM_CHUNKS)
    return noise_starter(recipe, seed=5, max_chunks=NUM_CHUNKS)


def engine_latents(
    recipe: Recipe,
    *,
    policy: Policy | None = None,
    has_input: bool = True,
    prediction: Prediction = Prediction.VELOCITY,
) -> torch.Tensor:
    rig = SmallEngine(policy or StreamBatch(), model=small_dit(prediction=prediction))
    stream = rig.open(recipe, seed=5, starter=starter_of(recipe, has_input))
    rig.finish(stream)
    return torch.cat(stream.latents)


def slow_latents(
    recipe: Recipe, *, has_input: bool = True, prediction: Prediction = Prediction.VELOCITY
) -> torch.Tensor:
    latents, _ = slow_rollout(
        small_dit(prediction=prediction),
        recipe,
        seed=5,
        start=starter_of(recipe, has_input).start,
        num_chunks=NUM_CHUNKS,
        text_of=lambda chunk: text(1),
        negative_text=text(0),
    )
    return torch.cat(latents)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("guidance", [FULL, INITIALIZE, SELF], ids=lambda g: str(g.mode))
@pytest.mark.parametrize("has_input", [True, False], ids=["input", "noise"])
def test_guidance_equals_the_loop_by_hand(
    mode: CacheMode, guidance: Guidance, has_input: bool
) -> None:
    """Two forwards a step and v = n + g (c - n), or the assumed n of residual guidance. The
    negative side has its own cache in each mode."""
    recipe = small_recipe(steps=3, mode=mode, chunk_frames=2, ring=4, guidance=guidance)
    expected = slow_latents(recipe, has_input=has_input)
    for policy in (StreamBatch(), Sequential()):
        latents = engine_latents(recipe, policy=policy, has_input=has_input)
        torch.testing.assert_close(latents, expected, **CLOSE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("guidance", [FULL, INITIALIZE, SELF], ids=lambda g: str(g.mode))
def test_guidance_of_a_model_that_predicts_clean_latents_equals_the_loop_by_hand(
    mode: CacheMode, guidance: Guidance
) -> None:
    """Its prediction becomes a velocity, is guided, and becomes clean latents again."""
    recipe = small_recipe(mode=mode, guidance=guidance)
    torch.testing.assert_close(
        engine_latents(recipe, prediction=Prediction.CLEAN),
        slow_latents(recipe, prediction=Prediction.CLEAN),
        **CLOSE,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("guidance", [FULL, INITIALIZE], ids=lambda g: str(g.mode))
def test_a_first_chunk_alone_is_shared_on_both_sides(mode: CacheMode, guidance: Guidance) -> None:
    """What the last step wrote goes to the rows of all steps, the negative ones' from the negative
    last; in `clean` mode there is one row a side and nothing crosses over."""
    recipe = small_recipe(
        steps=3, mode=mode, first_chunk_frames=3, first_chunk_is_alone=True, guidance=guidance
    )
    torch.testing.assert_close(engine_latents(recipe), slow_latents(recipe), **CLOSE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "guidance",
    [Guidance(mode, 1.0) for mode in GuidanceMode if mode is not GuidanceMode.NONE],
    ids=lambda g: str(g.mode),
)
def test_guidance_of_scale_one_is_no_guidance(mode: CacheMode, guidance: Guidance) -> None:
    """Bit for bit, and without a negative row: same rows leased, same shapes, same latents."""
    plain, guided = small_recipe(mode=mode), small_recipe(mode=mode, guidance=guidance)
    assert guided.num_cache_rows == plain.num_cache_rows
    assert torch.equal(engine_latents(guided), engine_latents(plain))


@pytest.mark.parametrize("guidance", [FULL, INITIALIZE, SELF], ids=lambda g: str(g.mode))
def test_guidance_changes_the_picture(guidance: Guidance) -> None:
    """So that the equalities above compare something."""
    guided, plain = engine_latents(small_recipe(guidance=guidance)), engine_latents(small_recipe())
    assert (guided - plain).abs().max() > 1e-2


@pytest.mark.parametrize("prediction", [Prediction.VELOCITY, Prediction.CLEAN])
@pytest.mark.parametrize("mode", MODES)
def test_each_session_has_its_own_guidance(mode: CacheMode, prediction: Prediction) -> None:
    """Guidance belongs to a recipe: sessions with other modes and scales share a forward, and an
    input's latents never guide a session that asked for no guidance."""
    guidances = [Guidance(), FULL, INITIALIZE, SELF, Guidance(GuidanceMode.FULL, 1.5)]
    recipes = [small_recipe(mode=mode, guidance=guidance) for guidance in guidances]
    rig = SmallEngine(StreamBatch(), model=small_dit(prediction=prediction), num_rows=20)
    streams = [
        rig.open(recipe, seed=5, starter=starter_of(recipe, has_input=True)) for recipe in recipes
    ]
    rig.finish(*streams)
    for stream, recipe in zip(streams, recipes, strict=True):
        expected = slow_latents(recipe, prediction=prediction)
        torch.testing.assert_close(torch.cat(stream.latents), expected, **CLOSE)


@pytest.mark.parametrize("positions", list(Positions))
@pytest.mark.parametrize("mode", MODES)
def test_the_loop_by_hand_and_the_engine_agree_without_guidance(
    mode: CacheMode, positions: Positions
) -> None:
    """A longer stream, past the eviction of many chunks, under both kinds of positions."""
    recipe = small_recipe(steps=2, mode=mode, positions=positions, chunk_frames=2, ring=4)
    rig = SmallEngine(StreamBatch(), positions=positions)
    stream = rig.open(recipe, seed=5, max_chunks=9)
    rig.finish(stream)
    expected, _ = slow_rollout(
        rig.model,
        recipe,
        seed=5,
        start=noise_starter(recipe, seed=5, max_chunks=9).start,
        num_chunks=9,
        text_of=lambda chunk: text(1),
        negative_text=text(0),
    )
    torch.testing.assert_close(torch.cat(stream.latents), torch.cat(expected), **CLOSE)
