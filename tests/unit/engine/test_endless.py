"""Streams of 5,000 latent frames: no jump, no stop, no growth, at either kind of positions."""

from __future__ import annotations

import gc
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from streamgen.cache.policies import WithinReach
from streamgen.cache.window import Positions
from streamgen.engine.batch import Started
from streamgen.engine.recipe import CacheMode, CachePolicy, Recipe
from streamgen.scheduling.policy import Sequential
from tests.small_engine import GEOMETRY, NOISE, SmallEngine, small_dit, small_recipe

CHUNK = 10
SINKS, RING = 10, 20
NUM_FRAMES = 5_000  # the references stop at 1,024 positions, or jump every 50
MODEL = small_dit()
CASES = {
    "window": (Positions.WINDOW, SINKS, CachePolicy()),
    "absolute, sinks within reach": (
        Positions.ABSOLUTE,
        SINKS,
        CachePolicy(sink_place=WithinReach(60)),
    ),
    "absolute, set back, without sinks": (Positions.ABSOLUTE, 0, CachePolicy(refresh_frames=60)),
}


class SameStarter:
    """Every chunk starts from the same noise, so whatever changes in what comes out of a full
    window is the cache's doing."""

    waiting_clips = 0

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def ready(self) -> bool:
        return True

    def has_ended(self) -> bool:
        return False

    def drop(self, num_clips: int) -> None:
        raise AssertionError("nothing is dropped here")

    def start(self, chunk: int) -> Started:
        noise = NOISE.noise(1, 0, 0, GEOMETRY.latent_shape(self._recipe.num_frames(chunk)))
        return Started(noise, None, None, None, float(chunk), float(chunk), CHUNK)


def endless(name: str) -> tuple[SmallEngine, Recipe]:
    positions, sinks, cache = CASES[name]
    recipe = small_recipe(
        steps=1,
        mode=CacheMode.PER_STEP,
        sinks=sinks,
        ring=RING,
        positions=positions,
        chunk_frames=CHUNK,
        cache=cache,
    )
    rig = SmallEngine(
        Sequential(),
        model=MODEL,
        num_rows=1,
        num_cells=SINKS + RING,
        positions=positions,
        cache=cache,
    )
    return rig, recipe


def play(name: str, num_frames: int) -> Tensor:
    """Latents, one chunk after the other; checks on the way that no tensor stays behind."""
    rig, recipe = endless(name)
    stream = rig.open(recipe, starter=SameStarter(recipe))
    store, alive, latents = rig.cache._store.data_ptr(), list[int](), list[Tensor]()
    while len(latents) * CHUNK < num_frames:
        rig.tick()
        latents += stream.latents
        stream.latents.clear()
        stream.session.clips.clear()
        if len(latents) % 100 == 0 and len(latents) != len(alive) * 100:
            gc.collect()
            alive.append(sum(issubclass(type(one), Tensor) for one in gc.get_objects()))
    assert rig.cache._store.data_ptr() == store
    grown = [later - 100 - earlier for earlier, later in pairwise(alive)]
    assert grown[1:] == [0] * len(grown[1:])  # but for the 100 latents that this test keeps
    return torch.stack(latents)


@pytest.mark.parametrize("name", list(CASES))
def test_a_stream_of_5000_latent_frames_neither_jumps_nor_stops_nor_grows(name: str) -> None:
    """Under the same input for ever, what comes out of a full window stays the same for ever: from
    chunk 20 on, within the rounding of keys that are rotated to other angles (1e-5)."""
    latents = play(name, NUM_FRAMES)
    assert len(latents) * CHUNK == NUM_FRAMES
    settled = latents[20:]
    assert (settled - settled[0]).abs().max() < 1e-5
    assert (latents[1] - latents[0]).abs().max() > 1e-3  # the window is seen at all


def test_absolute_positions_alone_let_sinks_drift_away() -> None:
    """What the rules above are for: without them the distance to the sinks grows, and it shows."""
    positions = Positions.ABSOLUTE
    recipe = small_recipe(
        steps=1,
        mode=CacheMode.PER_STEP,
        sinks=SINKS,
        ring=RING,
        positions=positions,
        chunk_frames=CHUNK,
    )
    rig = SmallEngine(
        Sequential(), model=MODEL, num_rows=1, num_cells=SINKS + RING, positions=positions
    )
    stream = rig.open(recipe, starter=SameStarter(recipe))
    while len(stream.latents) < 120:
        rig.tick()
    assert (stream.latents[119] - stream.latents[20]).abs().max() > 1e-3
