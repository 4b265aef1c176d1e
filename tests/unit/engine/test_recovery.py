"""After its caches and chunks in flight are lost, a stream goes on from what was seen of it."""

from __future__ import annotations

import pytest
import torch

from streamgen.engine.batch import Started
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.recovery import ContinuedStarter
from streamgen.scheduling.policy import StreamBatch
from tests.slow_joint import slow_joint_stream
from tests.small_engine import (
    GEOMETRY,
    NOISE,
    SmallEngine,
    Stream,
    VideoLikeStarter,
    small_dit,
    small_recipe,
    text,
)

CLOSE = {"atol": 2e-5, "rtol": 0}  # float32 sums in another order, through a chain of chunks
CHUNKS = 12
MODEL = small_dit()
RECIPES = {
    "clean": small_recipe(steps=2, mode=CacheMode.CLEAN),
    "per step": small_recipe(steps=3, mode=CacheMode.PER_STEP, first_chunk_frames=2),
    "cascaded": small_recipe(steps=3, mode=CacheMode.CASCADED),
    "recompute": small_recipe(steps=2, mode=CacheMode.RECOMPUTE),
    "joint": small_recipe(steps=3, mode=CacheMode.JOINT, ring=5),
    "joint, chunks of two": small_recipe(
        steps=2, mode=CacheMode.JOINT, ring=6, sinks=3, chunk_frames=2, first_chunk_frames=1
    ),
    "joint, no room before the window": small_recipe(
        steps=3, mode=CacheMode.JOINT, ring=6, sinks=2, chunk_frames=2
    ),
}


class Rig(SmallEngine):
    """A small engine whose executor can forget everything, as ranks that start anew have."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(
            StreamBatch(),
            model=MODEL,
            num_rows=2 * recipe.num_cache_rows,
            num_cells=recipe.sinks + recipe.ring,
            positions=recipe.positions,
        )

    def lose(self) -> None:
        """What others would have to send again is left where it is: prompts."""
        if self.executor.in_flight:
            self.executor.collect()
        for stream in self.engine.sessions:
            self.slots.drop_session(stream.id)
        rows = range(self.cache.shape.num_rows)
        cells = tuple(range(self.cache.shape.num_cells))
        for row in rows:
            kept = self.cache.read_cells(row, cells, slice(None))
            self.cache.write_cells(row, cells, slice(None), torch.full_like(kept, torch.nan))
        self.engine.recover(NOISE)


def given_of(started: Started) -> torch.Tensor:
    assert started.given_FCHW is not None
    return started.given_FCHW


def words_and_video(rig: Rig, recipe: Recipe) -> tuple[Stream, Stream]:
    starter = VideoLikeStarter(recipe, seed=2, max_chunks=CHUNKS)
    words = rig.open(recipe, seed=1, max_chunks=CHUNKS)
    return words, rig.open(recipe, seed=2, starter=starter)


@pytest.mark.parametrize("lost_after", [0, 1, 4, 7, 12])
@pytest.mark.parametrize("name", list(RECIPES))
def test_every_chunk_comes_out_once_in_order_whenever_all_is_lost(
    name: str, lost_after: int
) -> None:
    """Words and a video, twice in succession; nothing of the lost cache is read again."""
    recipe = RECIPES[name]
    whole = Rig(recipe)
    wanted = words_and_video(whole, recipe)
    whole.finish(*wanted)
    rig = Rig(recipe)
    streams = words_and_video(rig, recipe)
    rig.tick(lost_after)
    rig.lose()
    rig.tick(lost_after // 2)
    rig.lose()
    seen = [list(stream.latents) for stream in streams]
    rig.finish(*streams)
    for stream, before, undisturbed in zip(streams, seen, wanted, strict=True):
        assert stream.decoder.pts_s == undisturbed.decoder.pts_s
        assert [one.shape for one in stream.latents] == [one.shape for one in undisturbed.latents]
        assert all(torch.equal(*pair) for pair in zip(stream.latents, before, strict=False))
        assert torch.isfinite(torch.cat(stream.latents)).all()
    assert len(rig.slots) == 0


@pytest.mark.parametrize("lost_after", [1, 4, 6, 7, 12])
@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("joint")])
def test_a_window_of_chunks_begins_anew_behind_the_past(name: str, lost_after: int) -> None:
    """In `joint` mode: windows of the past, then of what was under way as it had begun, then of
    what nobody had begun, as lists say it of a stream whose first chunks are given."""
    recipe = RECIPES[name]
    rig = Rig(recipe)
    stream = rig.open(recipe, seed=1, max_chunks=CHUNKS)
    rig.tick(lost_after)
    rig.lose()
    num_seen = len(stream.latents)
    session = stream.session
    starter = session.starter
    assert isinstance(starter, ContinuedStarter)
    past, lost = starter.past, starter.lost
    assert len(lost) + num_seen == starter.next_inner
    began = [one.latents_FCHW for one in (*past, *lost)]
    coming = range(starter.next_inner, CHUNKS)

    def start(chunk: int) -> torch.Tensor:
        if chunk < len(began):
            return began[chunk]
        inner = coming[chunk - len(began)]
        return NOISE.noise(1, inner, 0, GEOMETRY.latent_shape(recipe.num_frames(inner)))

    wanted, _ = slow_joint_stream(
        MODEL,
        session.recipe,
        seed=session.seed,
        start=start,
        text_numbers=(1,) * (len(began) + len(coming)),
        text=text,
        given={number: given_of(one) for number, one in enumerate(past)},
    )
    rig.finish(stream)
    num_past = sum(one.latents_FCHW.shape[0] for one in past)
    torch.testing.assert_close(torch.cat(stream.latents[num_seen:]), wanted[num_past:], **CLOSE)
