"""A session changes its number of steps only when it has drained, and keeps its past."""

from __future__ import annotations

import pytest
import torch

from streamgen.engine.recipe import CacheMode
from streamgen.engine.rungs import change_rung
from streamgen.engine.terms import ServiceTerms
from streamgen.errors import CapacityError
from streamgen.scheduling.policy import StreamBatch
from streamgen.scheduling.service import Quality
from tests.small_engine import SmallEngine, noise_starter, small_recipe

LADDER = (Quality(4), Quality(2), Quality(1))


def opened(rig: SmallEngine, mode: CacheMode, *, seed: int = 1, max_chunks: int = 12):
    recipe = small_recipe(steps=4, mode=mode)
    stream = rig.open(recipe, seed=seed, max_chunks=1)
    rig.engine.close(stream.session)
    session = rig.engine.open(
        recipe,
        make_starter=lambda: noise_starter(recipe, seed=seed, max_chunks=max_chunks),
        decoder=stream.decoder,
        seed=seed,
        prompt=rig.prompt(1),
        negative_prompt=rig.prompt(0),
        max_waiting_clips=1000,
        terms=ServiceTerms(ladder=LADDER),
    )
    return session, stream.decoder


def drain(rig: SmallEngine, session: object, limit: int = 400) -> None:
    for _ in range(limit):
        if session.has_ended:  # type: ignore[attr-defined]
            return
        rig.tick()
    raise AssertionError("not done")


@pytest.mark.parametrize("mode", [CacheMode.CLEAN, CacheMode.PER_STEP, CacheMode.JOINT])
def test_a_session_goes_down_and_up_and_draws_every_chunk(mode: CacheMode) -> None:
    rig = SmallEngine(StreamBatch(), num_rows=8, positions=small_recipe(mode=mode).positions)
    session, decoder = opened(rig, mode)
    seen: set[tuple[int, int]] = set()
    for wanted in (1, 2, 0):
        session.wanted_rung = wanted
        for _ in range(12):
            before = session.recipe.num_steps
            rig.tick()
            if session.recipe.num_steps != before:
                seen.add((before, session.recipe.num_steps))
        assert session.rung == wanted
    drain(rig, session)
    assert seen == {(4, 2), (2, 1), (1, 4)}
    assert len(decoder.latents) == 12
    assert session.report.num_changes == 3
    assert all(bool(torch.isfinite(one).all()) for one in decoder.latents)


def test_fewer_steps_free_cache_rows_and_more_take_them_back() -> None:
    rig = SmallEngine(StreamBatch(), num_rows=8)
    session, _ = opened(rig, CacheMode.PER_STEP)
    held = [rig.rows.num_free]
    for rung in (1, 2, 0):
        change_rung(session, rung, rig.rows)
        held.append(rig.rows.num_free)
    assert held == [4, 6, 7, 4]
    assert len(session.cache_rows) == len(session.windows) == 4


def test_a_way_up_without_memory_changes_nothing() -> None:
    rig = SmallEngine(StreamBatch(), num_rows=4)
    session, _ = opened(rig, CacheMode.PER_STEP)
    change_rung(session, 1, rig.rows)
    rig.rows.lease(1)
    rows = session.cache_rows
    with pytest.raises(CapacityError):
        change_rung(session, 0, rig.rows)
    assert (session.cache_rows, session.rung, session.recipe.num_steps) == (rows, 1, 2)


def test_a_session_that_changes_leaves_others_as_they_were() -> None:
    """The pictures of a session do not depend on its neighbour's quality."""
    alone = SmallEngine(StreamBatch(), num_rows=8)
    first, expected = opened(alone, CacheMode.PER_STEP, seed=3)
    drain(alone, first)
    rig = SmallEngine(StreamBatch(), num_rows=8)
    steady, decoder = opened(rig, CacheMode.PER_STEP, seed=3)
    other, _ = opened(rig, CacheMode.PER_STEP, seed=4)
    other.wanted_rung = 1
    drain(rig, steady)
    for mine, theirs in zip(decoder.latents, expected.latents, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
