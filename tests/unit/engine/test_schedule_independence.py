"""The picture does not depend on the schedule: one property over engine, windows, cache and noise.

Noise is a function of (seed, chunk, step) and a cache row sees chunks in order, so what a session
computes is the same whatever runs beside it and in whatever order. Where batches have the same
shapes the bits are the same. Elsewhere matrix products of other sizes add in another order: about
1e-7 a layer, which a chain of chunks that read each other carries on, hence 1e-5 absolute on
numbers of size one. A chunk that saw a wrong neighbour, level, prompt or noise differs by more
than 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import given, settings
from hypothesis.strategies import booleans, composite, integers, lists, none, sampled_from
from torch import Tensor

from streamgen.cache.window import Positions
from streamgen.diffusion.guidance import Guidance, GuidanceMode
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from streamgen.scheduling.slo import SloAware
from tests.small_engine import (
    SmallEngine,
    Stream,
    VideoLikeStarter,
    noise_starter,
    small_dit,
    small_recipe,
)

CLOSE = {"atol": 1e-5, "rtol": 0}
MODEL = small_dit()
NUM_CELLS = 11  # of two sinks and a window of three chunks of three frames
WINDOW = Positions.WINDOW
GUIDANCES = (
    Guidance(),
    Guidance(GuidanceMode.INITIALIZE, 2.0, 0.9),
    Guidance(GuidanceMode.FULL, 2.0),
)


@dataclass(frozen=True)
class Person:
    """Who opens a session, when, and when they close it (None: they stay to the end)."""

    recipe: Recipe
    seed: int
    prompt: int
    has_input: bool
    num_chunks: int
    opens: int
    closes: int | None


@composite
def people(draw, positions: Positions, *, stays: bool) -> Person:
    chunk_frames, sinks = draw(integers(1, 3)), draw(integers(0, 2))
    modes = [mode for mode in CacheMode if mode is not CacheMode.JOINT or positions is WINDOW]
    recipe = small_recipe(
        steps=draw(integers(1, 3)),
        mode=draw(sampled_from(modes)),
        sinks=sinks,
        ring=draw(integers(chunk_frames, 5)),
        positions=positions,
        chunk_frames=chunk_frames,
        first_chunk_frames=draw(integers(1, 3)),
        first_chunk_is_alone=draw(booleans()),
        guidance=draw(sampled_from(GUIDANCES)),
    )
    if recipe.first_chunk_frames > sinks + recipe.ring:
        recipe = replace(recipe, first_chunk_frames=chunk_frames)
    return Person(
        recipe=recipe,
        seed=draw(integers(0, 3)),
        prompt=draw(integers(1, 4)),
        has_input=draw(booleans()),
        num_chunks=draw(integers(4, 6)),
        opens=0 if stays else draw(integers(0, 9)),
        closes=None if stays else draw(none() | integers(1, 9)),
    )


def enter(rig: SmallEngine, person: Person) -> Stream:
    starter = VideoLikeStarter if person.has_input else noise_starter
    return rig.open(
        person.recipe,
        seed=person.seed,
        prompt=rig.prompt(person.prompt),
        starter=starter(person.recipe, seed=person.seed, max_chunks=person.num_chunks),
    )


def watch(
    person: Person,
    neighbours: list[Person],
    policy: Policy,
    positions: Positions,
    *,
    max_rows: int,
    enters_at: int,
) -> tuple[Tensor, Tensor]:
    """Run a session among others; its latents, and what its cache rows hold at the end."""
    num_rows = sum(each.recipe.num_cache_rows for each in (person, *neighbours))
    rig = SmallEngine(
        policy,
        model=MODEL,
        num_rows=num_rows,
        num_cells=NUM_CELLS,
        positions=positions,
        max_rows=max_rows,
    )
    mine: Stream | None = None
    there: dict[int, Stream] = {}
    for tick in range(400):
        if tick == enters_at:
            mine = enter(rig, person)
        for number, each in enumerate(neighbours):
            if tick == each.opens:
                there[number] = enter(rig, each)
            elif each.closes is not None and tick == each.opens + each.closes:
                rig.engine.close(there.pop(number).session)
        if mine is not None and mine.session.has_ended:
            break
        rig.tick()
    assert mine is not None
    assert len(mine.latents) == person.num_chunks
    cells = len(mine.session.windows[0].frames())
    contents = [rig.cache.snapshot(row, cells) for row in mine.session.cache_rows]
    return torch.cat(mine.latents), torch.stack(contents)


@composite
def evenings(draw) -> tuple[Person, list[Person], Positions]:
    positions = draw(sampled_from(Positions))
    one = draw(people(positions, stays=True))
    return one, draw(lists(people(positions, stays=False), max_size=3)), positions


@settings(max_examples=20)
@given(
    evenings(),
    sampled_from([StreamBatch(), Sequential(), SloAware()]),
    integers(2, 12),
    integers(0, 6),
)
def test_the_picture_does_not_depend_on_the_schedule(
    evening: tuple[Person, list[Person], Positions],
    policy: Policy,
    max_rows: int,
    enters_at: int,
) -> None:
    """Alone and in sequence, or under any policy, with any room in a batch, among up to three
    others with recipes, prompts, seeds and inputs of their own who come and go: the same latents,
    and the same keys and values in the cache."""
    person, neighbours, positions = evening
    alone = watch(person, [], Sequential(), positions, max_rows=64, enters_at=0)
    among = watch(person, neighbours, policy, positions, max_rows=max_rows, enters_at=enters_at)
    has_equal_shapes = not neighbours and (
        isinstance(policy, Sequential) or person.recipe.max_in_flight == 1
    )
    for ours, theirs in zip(among, alone, strict=True):
        if has_equal_shapes:
            assert torch.equal(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs, **CLOSE)


def test_what_should_change_the_picture_does() -> None:
    """So that the property above compares something: another seed, prompt, recipe or input gives
    latents that differ by far more than its tolerance."""
    person = Person(small_recipe(ring=4), 0, 1, False, 4, 0, None)
    others = [
        replace(person, seed=1),
        replace(person, prompt=2),
        replace(person, has_input=True),
        replace(person, recipe=small_recipe(ring=2)),
        replace(person, recipe=small_recipe(ring=4, sinks=0)),
        replace(person, recipe=small_recipe(ring=4, first_chunk_is_alone=True)),
        replace(person, recipe=small_recipe(ring=4, mode=CacheMode.CLEAN)),
        replace(person, recipe=small_recipe(ring=4, guidance=GUIDANCES[1])),
    ]
    seen = [
        watch(each, [], Sequential(), Positions.ABSOLUTE, max_rows=64, enters_at=0)[0]
        for each in (replace(person, num_chunks=7), *[replace(o, num_chunks=7) for o in others])
    ]
    for other in seen[1:]:
        assert (other - seen[0]).abs().max() > 1e-3
