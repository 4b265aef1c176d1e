"""A scene that begins in the midst of a stream: what its chunks look at, at every step."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from streamgen.cache.window import Positions
from streamgen.engine.batch import Started
from streamgen.engine.past import PastLatents
from streamgen.engine.recipe import CacheMode
from streamgen.engine.recovery import go_on_from_past
from streamgen.engine.session import Session
from streamgen.scheduling.plan import Pass
from streamgen.types import PromptId, SessionId
from tests.small_engine import NOISE, NoClip, small_recipe

STARTED = Started(None, None, None, None, 0.0, 0.0, 1)  # type: ignore[arg-type]
NEW_SCENE = replace(STARTED, begins_scene=True)
ID = SessionId(0)


class NoStarter:
    waiting_clips = 0

    def ready(self) -> bool:
        return False

    def has_ended(self) -> bool:
        return False

    def start(self, chunk: int) -> Started:
        raise AssertionError("nobody asks")

    def drop(self, num_clips: int) -> None: ...


class NoDecoder:
    def decode(self, *arguments: object, **named: object) -> NoClip:
        return NoClip()


def session(mode: CacheMode, positions: Positions) -> Session:
    recipe = small_recipe(steps=2, mode=mode, positions=positions)
    return Session(
        ID, recipe, NoStarter(), NoDecoder(), 0, PromptId(0), PromptId(0),
        tuple(range(recipe.num_cache_rows)), 4, 1, 0.0,
    )  # fmt: skip


def walk(session: Session, *steps: tuple[int, int]) -> list[tuple[int, ...]]:
    """Run passes (chunk, step) in this order; the positions that each of them looks at."""
    seen: list[tuple[int, ...]] = []
    for chunk, step in steps:
        where = Pass(ID, chunk, step)
        (row,) = session.rows(where)
        assert len(row.placement.key_positions) == row.placement.num_cells
        seen.append(row.placement.key_positions)
        session.advance(where, 0.0)
    return seen


@pytest.mark.parametrize("positions", list(Positions))
def test_chunks_of_a_new_scene_look_at_it_alone_and_those_in_flight_at_theirs(
    positions: Positions,
):
    """The new scene's first frame is its sink, as the first one was; the old chunk, which is still
    on the ladder, finishes with all that it knows."""
    stream = session(CacheMode.PER_STEP, positions)
    for started in (STARTED, STARTED):
        stream.begin(started, 0.0)
    walk(stream, (0, 0), (1, 0), (0, 1))
    stream.begin(NEW_SCENE, 0.0)
    stream.begin(STARTED, 0.0)
    new, old, later, last, newest = walk(stream, (2, 0), (1, 1), (3, 0), (2, 1), (3, 1))
    assert new == last == (0,)
    assert old == (0, 1)
    assert later == newest == (0, 1)


def test_a_clean_cache_begins_anew_too():
    stream = session(CacheMode.CLEAN, Positions.WINDOW)
    for chunk, started in enumerate((STARTED, STARTED, NEW_SCENE, STARTED)):
        stream.begin(started, 0.0)
        seen = walk(stream, (chunk, 0), (chunk, 1), (chunk, 2))
        assert set(seen) == {tuple(range(1 + chunk % 2))}


def test_a_window_begun_anew_counts_frames_of_the_stream():
    stream = session(CacheMode.CLEAN, Positions.WINDOW)
    for chunk in range(9):
        stream.begin(NEW_SCENE if chunk == 3 else STARTED, 0.0)
        walk(stream, (chunk, 0), (chunk, 1), (chunk, 2))
    assert stream.windows[0].frames() == (3, 6, 7, 8)
    with pytest.raises(ValueError, match="do not follow"):
        stream.windows[0].place(2, 1)


def test_a_scene_begins_on_a_rung_of_more_steps_in_each_of_its_rows():
    """The rows that the rung brought know of no scene before."""
    stream = session(CacheMode.PER_STEP, Positions.WINDOW)
    stream.begin(STARTED, 0.0)
    walk(stream, (0, 0), (0, 1))
    stream.recipe = small_recipe(steps=3, mode=CacheMode.PER_STEP, positions=Positions.WINDOW)
    stream.cache_rows = (0, 1, 2)
    stream.windows.append(copy.deepcopy(stream.windows[-1]))
    stream.begin(NEW_SCENE, 0.0)
    assert walk(stream, (1, 0), (1, 1), (1, 2)) == [(0,), (0,), (0,)]


def test_a_scene_that_begins_again_after_a_loss_is_a_scene_again():
    """Numbers of chunks begin anew, and the scene's may be the one that it had before."""
    stream = session(CacheMode.CLEAN, Positions.WINDOW)
    for chunk, started in enumerate((STARTED, NEW_SCENE)):
        stream.begin(started, 0.0)
        walk(stream, (chunk, 0), (chunk, 1), (chunk, 2))
    go_on_from_past(stream, NOISE)
    for chunk, started in enumerate((STARTED, NEW_SCENE)):
        stream.begin(started, 0.0)
        seen = walk(stream, (chunk, 0), (chunk, 1), (chunk, 2))
        assert set(seen) == {(0,)}


def test_the_past_of_a_stream_ends_where_a_scene_begins():
    """Nobody who goes on from it looks back on the scene before."""
    past = PastLatents(sinks=1, ring=2)
    past.add(torch.arange(5.0)[:, None])
    past.forget()
    assert past.frames() == []
    past.add(torch.tensor([[7.0], [8.0]]))
    assert [float(frame) for frame in past.frames()] == [7.0, 8.0]
