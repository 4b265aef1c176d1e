"""Opening, prompting, closing: what a session may hold, and what it must not leave behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamgen.diffusion.flow import add_noise, velocity_to_clean
from streamgen.diffusion.guidance import Guidance, GuidanceMode
from streamgen.engine.prompt_book import PromptBook
from streamgen.engine.recipe import CacheMode
from streamgen.errors import CapacityError
from streamgen.scheduling.plan import Pass
from streamgen.scheduling.policy import Sequential, StreamBatch
from streamgen.types import PromptId
from tests.slow_rollout import SlowRow, slow_rollout
from tests.small_engine import (
    NOISE,
    LatentDecoder,
    SmallEngine,
    noise_starter,
    small_recipe,
    text,
)

FULL = Guidance(GuidanceMode.FULL, 2.0)


def candidates(stream) -> list[tuple[int, int]]:
    return [(one.where.chunk, one.where.step) for one in stream.session.view().candidates]


def test_a_chunk_waits_until_the_one_before_has_taken_its_step() -> None:
    """Per-step rows: each tick one more chunk is on the ladder, at falling steps."""
    rig = SmallEngine(StreamBatch())
    stream = rig.open(small_recipe(steps=3))
    seen = []
    for _ in range(4):
        seen.append(candidates(stream))
        rig.tick()
        assert candidates(stream)[1:] == []  # the next may start, what is under way may not
        rig.engine._retire(rig.executor.collect())
    assert seen == [
        [(0, 0)],
        [(0, 1), (1, 0)],
        [(0, 2), (1, 1), (2, 0)],
        [(1, 2), (2, 1), (3, 0)],
    ]


def test_a_clean_cache_has_one_chunk_at_a_time() -> None:
    """The next chunk begins behind the clean pass, which is one more step."""
    rig = SmallEngine(StreamBatch())
    stream = rig.open(small_recipe(steps=2, mode=CacheMode.CLEAN))
    seen = []
    for _ in range(4):
        seen.append(candidates(stream))
        rig.tick()
        assert candidates(stream) == []
        rig.engine._retire(rig.executor.collect())
    assert seen == [[(0, 0)], [(0, 1)], [(0, 2)], [(1, 0)]]


def test_a_lone_first_chunk_keeps_the_second_waiting() -> None:
    rig = SmallEngine(StreamBatch())
    stream = rig.open(small_recipe(steps=2, first_chunk_is_alone=True))
    seen = []
    for _ in range(4):
        seen.append(candidates(stream))
        rig.tick()
        rig.engine._retire(rig.executor.collect())
    assert seen == [[(0, 0)], [(0, 1)], [(1, 0)], [(1, 1), (2, 0)]]


def test_a_pass_that_may_not_run_is_refused() -> None:
    """A policy that invents a pass is stopped before it can put a row out of order."""
    rig = SmallEngine(StreamBatch())
    stream = rig.open(small_recipe(steps=3))
    rig.tick()
    with pytest.raises(AssertionError, match="under way"):
        stream.session.rows(Pass(stream.session.id, 0, 1))
    with pytest.raises(AssertionError, match="not the chunk's next step"):
        stream.session.rows(Pass(stream.session.id, 0, 2))


@pytest.mark.parametrize("max_waiting", [1, 3])
@pytest.mark.parametrize("mode", list(CacheMode))
def test_clips_that_nobody_takes_stop_the_session(mode: CacheMode, max_waiting: int) -> None:
    """At most max_waiting_clips and the chunks that were under way then; taking some goes on."""
    recipe = small_recipe(steps=3, mode=mode)
    rig = SmallEngine(StreamBatch(), positions=recipe.positions)
    stream = rig.open(recipe, max_waiting_clips=max_waiting)
    rig.tick(60)
    waiting = len(stream.session.clips)
    assert max_waiting <= waiting <= max_waiting - 1 + recipe.max_in_flight
    assert not rig.engine.tick()
    assert len(rig.slots) == (recipe.max_in_flight - 1 if mode is CacheMode.JOINT else 0)
    stream.session.clips.clear()
    rig.tick(60)
    assert len(stream.latents) > waiting


@pytest.mark.parametrize("policy", [StreamBatch(), Sequential()])
def test_a_new_prompt_holds_from_the_next_chunk_on(policy) -> None:
    """Chunks in flight keep theirs and the stream goes on: exactly as when the chunks' prompts had
    been known from the start. The old prompt leaves with its last chunk."""
    rig = SmallEngine(policy)
    recipe = small_recipe(steps=3)
    first, second = rig.prompt(1), rig.prompt(2)
    stream = rig.open(recipe, seed=4, prompt=first, max_chunks=8)
    rig.engine.drop_prompt(first)
    rig.tick(6)
    switch_at = stream.session.next_chunk
    assert len(stream.session.chunks) >= 1
    rig.engine.set_prompt(stream.session, second)
    rig.engine.drop_prompt(second)
    rig.finish(stream)
    expected, _ = slow_rollout(
        rig.model,
        recipe,
        seed=4,
        start=noise_starter(recipe, seed=4, max_chunks=8).start,
        num_chunks=8,
        text_of=lambda chunk: text(1 if chunk < switch_at else 2),
        negative_text=text(0),
    )
    assert 0 < switch_at < 7
    torch.testing.assert_close(torch.cat(stream.latents), torch.cat(expected), atol=1e-5, rtol=0)
    assert set(rig.stage.prompts._prompts) == {second, stream.session.negative_prompt}


def test_a_session_leaves_nothing_when_it_is_closed_in_mid_flight() -> None:
    """Rows are free at once; latents and prompts leave the executor with the next tick, even where
    nobody else is there; what it had under way comes to nothing."""
    rig = SmallEngine(StreamBatch(), num_rows=3)
    stream = rig.open(small_recipe(steps=3))
    rig.tick(7)
    assert len(rig.slots) > 0
    assert len(rig.stage.prompts) == 2
    drawn = len(stream.latents)
    rig.engine.close(stream.session)
    assert rig.rows.num_free == 3
    rig.tick(3)
    assert len(stream.latents) == drawn
    assert len(rig.slots) == 0
    assert len(rig.stage.prompts) == 0
    assert not rig.engine.tick()


@pytest.mark.parametrize("mode", list(CacheMode))
@pytest.mark.parametrize("ticks", [1, 2, 5, 8])
def test_a_second_session_equals_the_first(mode: CacheMode, ticks: int) -> None:
    """Bit for bit: neither cache rows with another stream's keys, nor windows, nor latents of a
    session that was closed in mid-flight reach the one that leases its rows."""
    recipe = small_recipe(steps=3, mode=mode, first_chunk_is_alone=True, guidance=FULL)
    fresh = SmallEngine(StreamBatch(), num_rows=recipe.num_cache_rows, positions=recipe.positions)
    expected = fresh.open(recipe, seed=9, max_chunks=6)
    fresh.finish(expected)
    rig = SmallEngine(StreamBatch(), num_rows=recipe.num_cache_rows, positions=recipe.positions)
    other = rig.open(recipe, seed=1, prompt=rig.prompt(3))
    rig.tick(ticks)
    rig.engine.close(other.session)
    second = rig.open(recipe, seed=9, max_chunks=6)
    assert second.session.cache_rows == other.session.cache_rows
    rig.finish(second)
    assert torch.equal(torch.cat(second.latents), torch.cat(expected.latents))


def test_a_refused_session_leaves_the_engine_usable() -> None:
    """CapacityError for rows that are taken: who is there goes on, and the next fits again."""
    rig = SmallEngine(StreamBatch(), num_rows=3)
    first = rig.open(small_recipe(steps=2), max_chunks=3)
    with pytest.raises(CapacityError, match="needs 2 neighbouring cache rows, 1 of 3"):
        rig.open(small_recipe(steps=2))
    rig.finish(first)
    rig.engine.close(first.session)
    second = rig.open(small_recipe(steps=3), max_chunks=2)
    rig.finish(second)
    assert len(second.latents) == 2


def test_a_pass_that_never_fits_is_refused_at_the_door() -> None:
    """Otherwise a guided session would wait for ever, silently."""
    rig = SmallEngine(StreamBatch(), max_rows=1)
    with pytest.raises(CapacityError, match="a guided pass takes 2 rows, a forward has 1"):
        rig.open(small_recipe(guidance=FULL))
    stream = rig.open(small_recipe(), max_chunks=2)
    rig.finish(stream)
    assert rig.rows.num_free == 6


def test_a_session_that_cannot_begin_holds_nothing() -> None:
    """Neither rows nor prompts, whether its starter fails or a prompt is gone."""
    rig = SmallEngine(StreamBatch(), num_rows=2)
    prompt, gone = rig.prompt(1), rig.prompt(2)
    rig.engine.drop_prompt(gone)

    def broken():
        raise RuntimeError("no camera")

    def working():
        return noise_starter(small_recipe(), seed=0, max_chunks=1)

    for make_starter, negative, error in (
        (broken, prompt, RuntimeError),
        (working, gone, ValueError),
    ):
        with pytest.raises(error, match=r"no camera|prompt 1 is gone"):
            rig.engine.open(
                small_recipe(),
                make_starter=make_starter,
                decoder=LatentDecoder(),  # never asked
                seed=0,
                prompt=prompt,
                negative_prompt=negative,
                max_waiting_clips=1,
            )
        assert rig.rows.num_free == 2
    rig.engine.drop_prompt(prompt)
    with pytest.raises(ValueError, match="is gone"):
        rig.engine.drop_prompt(prompt)


def test_prompts_travel_once_and_leave_when_nobody_holds_them() -> None:
    book = PromptBook()
    one, two = text(1), text(2)
    first, second = book.add(one), book.add(two)
    added, dropped = book.take_changes()
    assert added[first] is one
    assert added[second] is two
    assert dropped == []
    book.hold(first, first)
    book.release(first)
    book.release(first)
    assert not book.has_dropped
    book.release(first)
    assert book.has_dropped
    assert book.take_changes() == ({}, [first])
    assert book.take_changes() == ({}, [])


def test_a_prompt_that_was_never_sent_never_leaves() -> None:
    book = PromptBook()
    book.release(book.add(text(0)))
    assert book.take_changes() == ({}, [])


def test_prompts_are_held_all_or_none() -> None:
    book = PromptBook()
    here = book.add(text(0))
    with pytest.raises(ValueError, match="prompt 7 is gone"):
        book.hold(here, PromptId(7))
    book.release(here)
    for act in (book.hold, book.release):
        with pytest.raises(ValueError, match="prompt 0 is gone"):
            act(here)


class Failing:
    """A starter or decoder that does as another one does, until `what` is called at `chunk`."""

    waiting_clips = 0

    def __init__(self, inner, what: str, chunk: int) -> None:
        self._inner = inner
        self._what = what
        self._chunk = chunk
        self._num_started = self._num_decoded = 0

    def _fail(self, what: str, chunk: int) -> None:
        if what == self._what and chunk >= self._chunk:
            raise RuntimeError(f"{what} broke")

    def ready(self) -> bool:
        self._fail("ready", self._num_started)
        return self._inner.ready()

    def has_ended(self) -> bool:
        return self._inner.has_ended()

    def drop(self, num_clips: int) -> None:
        raise AssertionError("nothing is dropped here")

    def start(self, chunk: int):
        self._fail("start", chunk)
        self._num_started += 1
        return self._inner.start(chunk)

    def decode(self, latents_FCHW, **facts):
        self._fail("decode", self._num_decoded)
        self._num_decoded += 1
        return self._inner.decode(latents_FCHW, **facts)


@pytest.mark.parametrize("what", ["ready", "start", "decode"])
@pytest.mark.parametrize("chunk", [0, 2])
@pytest.mark.parametrize("mode", list(CacheMode))
def test_a_session_that_breaks_costs_the_others_nothing(
    what: str, chunk: int, mode: CacheMode, caplog: pytest.LogCaptureFixture
) -> None:
    """What its own input or codec raises ends it alone; its neighbour's latents stay the same."""
    recipe = small_recipe(steps=3, mode=mode)
    alone = SmallEngine(StreamBatch(), positions=recipe.positions)
    expected = alone.open(recipe, seed=5, max_chunks=6)
    alone.finish(expected)
    rig = SmallEngine(StreamBatch(), positions=recipe.positions)
    starter = noise_starter(recipe, seed=1, max_chunks=6)
    broken = rig.open(recipe, seed=1, starter=Failing(starter, what, chunk))
    broken.session.decoder = Failing(LatentDecoder(), what, chunk)
    healthy = rig.open(recipe, seed=5, max_chunks=6)
    rig.finish(healthy)
    assert str(broken.session.failure) == f"{what} broke"
    assert "failed" in caplog.text
    torch.testing.assert_close(
        torch.cat(healthy.latents), torch.cat(expected.latents), atol=1e-5, rtol=0
    )
    rig.engine.close(broken.session)
    rig.tick(2)
    assert rig.rows.num_free == 8 - recipe.num_cache_rows
    rig.engine.close(healthy.session)
    rig.tick(2)
    assert len(rig.slots) == 0


@pytest.mark.parametrize("later", [(0,), (0, 2), (0, 1, 3)])
def test_later_chunks_leave_out_steps_as_if_they_had_their_own_ladder(
    later: tuple[int, ...],
) -> None:
    """The first chunk takes four (Causal Forcing++). Written down plainly, under either policy."""
    recipe = replace(small_recipe(steps=4, mode=CacheMode.CLEAN, ring=4), later_steps=later)
    for policy in (StreamBatch(), Sequential()):
        rig = SmallEngine(policy)
        stream = rig.open(recipe, seed=4, max_chunks=5)
        for _ in range(60):
            rig.tick()
        assert len(stream.latents) == 5
        assert len(rig.slots) == 0
        texts = text(1)
        row, start = SlowRow(rig.model, recipe), noise_starter(recipe, seed=4, max_chunks=5).start
        for chunk, found in enumerate(stream.latents):
            noisy = start(chunk).latents_FCHW
            steps = range(4) if chunk == 0 else later
            for place, step in enumerate(steps):
                at = {"text_MD": texts, "first_frame": chunk}
                velocity = row.forward(noisy, timestep=recipe.ladder.timesteps[step], **at)
                sigma = torch.tensor([recipe.ladder.sigmas[step]], dtype=torch.float64)
                clean = velocity_to_clean(noisy[None], velocity[None], sigma)[0]
                if place + 1 < len(steps):
                    noise = NOISE.noise(4, chunk, step + 1, tuple(clean.shape))
                    level = torch.tensor([recipe.ladder.sigmas[steps[place + 1]]])
                    noisy = add_noise(clean[None], noise[None], level)[0]
            row.forward(clean, timestep=recipe.context_level.timestep, **at)
            torch.testing.assert_close(found, clean, atol=1e-5, rtol=0)
