"""Cache policies as integers: what is held where, what is done to cells, at which positions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis.strategies import composite, integers, sampled_from, sets

from streamgen.cache.context import RecomputedContext
from streamgen.cache.placement import (
    CellsBlended,
    CellsMoved,
    KeysTurned,
    Placement,
    Positions,
    QuerySpan,
)
from streamgen.cache.policies import (
    FORGET,
    OWN_PLACE,
    REFERENCE_POSITION,
    AheadOfChunk,
    BeforeOthers,
    BlendIntoSinks,
    Flush,
    KeepAll,
    Recache,
    SinkPlace,
    WithinReach,
)
from streamgen.cache.window import RollingWindow

ABSOLUTE, WINDOW = Positions.ABSOLUTE, Positions.WINDOW


class IntegerRow:
    """A cache row that holds, instead of keys, which frame they are of and where it was turned."""

    def __init__(self) -> None:
        self.frame_of: dict[int, int] = {}
        self.turned_by: dict[int, int] = {}

    def apply(self, placement: Placement, first_frame: int) -> None:
        for edit in placement.edits:
            match edit:
                case CellsMoved(sources, targets):
                    moved = [self.frame_of[cell] for cell in sources]
                    self.frame_of |= dict(zip(targets, moved, strict=True))
                case KeysTurned(cells, frames):
                    for cell in cells:
                        self.turned_by[cell] += frames
                case CellsBlended(sources, targets, _):
                    assert all(cell in self.frame_of for cell in (*sources, *targets))
        for number, cell in enumerate(placement.write_cells):
            self.frame_of[cell] = first_frame + number
            self.turned_by[cell] = placement.query_positions[number]

    def read(self, placement: Placement) -> list[int]:
        return [self.frame_of[cell] for cell in range(placement.num_cells)]


@dataclass(frozen=True)
class Life:
    """A stream of chunks, some of which begin a new prompt."""

    sinks: int
    ring: int
    chunk: int
    num_chunks: int
    switches: set[int]

    def chunks(self) -> list[tuple[int, bool]]:
        return [(n * self.chunk, n in self.switches) for n in range(self.num_chunks)]


@composite
def lives(draw, *, min_sinks: int = 0) -> Life:
    chunk = draw(integers(1, 3))
    sinks = chunk * draw(integers(min_sinks, 3))
    ring = draw(integers(chunk, 9))
    return Life(sinks, ring, chunk, draw(integers(1, 30)), draw(sets(integers(1, 30), max_size=4)))


@given(lives(), integers(0, 9), sampled_from(Positions))
def test_a_flush_keeps_sinks_and_the_newest_frames(
    life: Life, keeps: int, positions: Positions
) -> None:
    """Against a list of frames: a switch cuts the ring to its newest, a chunk then joins and the
    oldest leave. Cells hold exactly these frames, without gaps, and none is read before written."""
    window = RollingWindow(
        sinks=life.sinks, ring=life.ring, positions=positions, on_switch=Flush(keeps)
    )
    row, ring = IntegerRow(), list[int]()
    for first_frame, is_switch in life.chunks():
        new = range(first_frame, first_frame + life.chunk)
        if is_switch:
            ring = ring[len(ring) - min(keeps, len(ring)) :]
        ring = (ring + [frame for frame in new if frame >= life.sinks])[-life.ring :]
        placement = window.place(first_frame, life.chunk, is_switch=is_switch)
        row.apply(placement, first_frame)
        held = [*range(min(life.sinks, new.stop)), *ring]
        assert list(window.frames()) == held
        assert sorted(row.read(placement)) == held
        again = window.place(first_frame, life.chunk, is_switch=is_switch)
        assert again.edits == ()
        assert again.write_cells == placement.write_cells


def test_a_flush_by_hand() -> None:
    """One sink, ring of 5: frames 5 to 9 in the ring; two survive and move to its front."""
    window = RollingWindow(sinks=1, ring=5, positions=WINDOW, on_switch=Flush(2))
    for frame in range(10):
        window.place(frame, 1)
    placement = window.place(10, 1, is_switch=True)
    assert placement == Placement(
        (3,), 4, (3,), (0, 1, 2, 3), edits=(CellsMoved(sources=(3, 4), targets=(1, 2)),)
    )
    assert window.frames() == (0, 8, 9, 10)


@given(lives())
def test_without_a_policy_a_switch_changes_nothing(life: Life) -> None:
    plain, switched = (
        RollingWindow(sinks=life.sinks, ring=life.ring, positions=ABSOLUTE) for _ in range(2)
    )
    for first_frame, is_switch in life.chunks():
        placement = switched.place(first_frame, life.chunk, is_switch=is_switch)
        assert placement == plain.place(first_frame, life.chunk)
        assert placement.edits == ()
        assert switched.prelude(first_frame + life.chunk, life.chunk, is_switch=True) is None


@given(lives())
def test_a_recache_reads_the_ring_and_sinks_only_while_nothing_has_left(life: Life) -> None:
    """Frames of the prelude, and the latents that have to be kept for it, are the frames in the
    ring; with the whole past still in the window the sinks, too. It writes where they lie."""
    window = RollingWindow(
        sinks=life.sinks, ring=life.ring, positions=ABSOLUTE, on_switch=Recache()
    )
    row = IntegerRow()
    for first_frame, is_switch in life.chunks():
        held = window.frames()
        prelude = window.prelude(first_frame, life.chunk, is_switch=is_switch)
        if not is_switch or not first_frame:
            assert prelude is None
        else:
            assert prelude is not None
            has_all = first_frame <= life.sinks + life.ring
            assert prelude.frames == tuple(f for f in held if has_all or f >= life.sinks)
            assert prelude.frames == window.recalled()
            cells = prelude.placement.write_cells
            assert [row.frame_of[cell] for cell in cells] == list(prelude.frames)
            assert prelude.placement.num_cells == len(held)
            assert prelude.placement.query_positions == prelude.frames
        row.apply(window.place(first_frame, life.chunk, is_switch=is_switch), first_frame)


@given(lives(min_sinks=1))
def test_ema_sinks_take_over_every_frame_that_leaves_and_none_twice(life: Life) -> None:
    """Each frame of the ring is blended once, when it leaves, into the sink of its own place."""
    window = RollingWindow(
        sinks=life.sinks, ring=life.ring, positions=WINDOW, eviction=BlendIntoSinks(0.9)
    )
    row, blended = IntegerRow(), list[int]()
    for first_frame, _ in life.chunks():
        placement = window.place(first_frame, life.chunk)
        for edit in placement.edits:
            assert isinstance(edit, CellsBlended)
            assert len(set(edit.targets)) == len(edit.targets)
            frames = [row.frame_of[cell] for cell in edit.sources]
            assert edit.targets == tuple(frame % life.sinks for frame in frames)
            blended += frames
        row.apply(placement, first_frame)
    end = life.num_chunks * life.chunk
    assert blended == list(range(life.sinks, max(life.sinks, end - life.ring)))


@given(lives(), integers(1, 40))
def test_a_refresh_keeps_the_ring_together_and_positions_bounded(life: Life, room: int) -> None:
    """Keys stand where positions say they do, frames of the ring keep their distances, sinks their
    places, and no position ever reaches the refresh by more than a chunk."""
    refresh = life.sinks + life.ring + room
    window = RollingWindow(
        sinks=life.sinks, ring=life.ring, positions=ABSOLUTE, refresh_frames=refresh
    )
    row, turns = IntegerRow(), 0
    for number in range(3 * life.num_chunks):
        first_frame = number * life.chunk
        placement = window.place(first_frame, life.chunk)
        turns += len(placement.edits)
        row.apply(placement, first_frame)
        assert [row.turned_by[cell] for cell in range(placement.num_cells)] == list(
            placement.key_positions
        )
        position_of = dict(zip(row.read(placement), placement.key_positions, strict=True))
        newest = first_frame + life.chunk - 1
        for frame in window.frames():
            if frame < life.sinks:
                assert position_of[frame] == frame
            else:
                assert position_of[newest] - position_of[frame] == newest - frame
        assert max(position_of.values()) < refresh + life.chunk
        assert min(position_of.values()) >= 0
    if life.ring > life.chunk:
        assert (turns > 0) == (3 * life.num_chunks * life.chunk - life.chunk >= refresh)


def test_a_refresh_begins_where_stream_diffusion_v2_begins() -> None:
    """Three sinks, a ring of three, chunks of one: frame 50 is told that it is frame 5."""
    window = RollingWindow(sinks=3, ring=3, positions=ABSOLUTE, refresh_frames=50)
    for frame in range(50):
        placement = window.place(frame, 1)
    assert placement.query_positions == (49,)
    refreshed = window.place(50, 1)
    assert refreshed.query_positions == (5,)
    assert refreshed.edits == (KeysTurned(cells=(3, 4), frames=-45),)
    assert sorted(refreshed.key_positions) == [0, 1, 2, 3, 4, 5]
    assert window.place(51, 1).query_positions == (6,)


@given(lives(min_sinks=1), sampled_from(["before", "within", "ahead"]), integers(0, 30))
def test_moved_sinks_keep_their_distance(life: Life, where: str, more: int) -> None:
    """However long the stream: other frames are where they are, sinks stay together and at the
    distance that their rule names; while they are written they have their own positions."""
    reach = life.sinks + life.ring + more
    place: SinkPlace = {
        "before": BeforeOthers(),
        "within": WithinReach(reach),
        "ahead": AheadOfChunk(reach),
    }[where]
    window = RollingWindow(sinks=life.sinks, ring=life.ring, positions=ABSOLUTE, sink_place=place)
    for first_frame, _ in life.chunks():
        placement = window.place(first_frame, life.chunk)
        sinks, others = (
            placement.key_positions[: life.sinks],
            sorted(placement.key_positions[life.sinks :]),
        )
        newest = first_frame + life.chunk - 1
        assert others == [frame for frame in window.frames() if frame >= life.sinks]
        assert placement.edits == ()
        if newest < life.sinks:
            assert sinks == tuple(range(newest + 1))
            continue
        assert sinks == tuple(range(sinks[0], sinks[0] + life.sinks))
        if where == "before":
            assert sinks[-1] == others[0] - 1
        elif where == "within":
            assert sinks[0] == max(0, newest - reach)
            assert sinks[-1] < others[0]
        elif first_frame >= life.sinks:
            assert sinks[0] == max(REFERENCE_POSITION, first_frame + reach)


@given(lives(min_sinks=1))
def test_an_anchor_before_the_ring_is_a_window_shifted(life: Life) -> None:
    """Rolling Forcing's anchor at absolute positions and positions inside the window are the same
    but for one shift of all, which rotary embedding does not see (Su et al. 2021, eq. 16)."""
    anchored = RollingWindow(
        sinks=life.sinks, ring=life.ring, positions=ABSOLUTE, sink_place=BeforeOthers()
    )
    inside = RollingWindow(sinks=life.sinks, ring=life.ring, positions=WINDOW)
    for first_frame, _ in life.chunks():
        one, other = (window.place(first_frame, life.chunk) for window in (anchored, inside))
        shifts = {
            ours - theirs
            for ours, theirs in zip(
                (*one.key_positions, *one.query_positions),
                (*other.key_positions, *other.query_positions),
                strict=True,
            )
        }
        assert len(shifts) == 1


@given(integers(0, 3), integers(0, 6), integers(1, 4), integers(1, 20))
def test_a_recomputed_context_is_the_first_and_the_newest(
    first: int, newest: int, chunk: int, num_chunks: int
) -> None:
    """At places 0, 1, ... in the order of time, the chunk behind it; nothing carries over, and
    the latents that are kept are those that the next context is made from."""
    window = RecomputedContext(first=first, newest=newest, chunk_frames=chunk)
    kept: set[int] = set()
    for number in range(num_chunks):
        start = number * chunk
        past = list(range(start))
        wanted = sorted({*past[:first], *past[len(past) - min(newest, len(past)) :]})
        prelude = window.prelude(start, chunk, is_switch=False)
        size = len(wanted)
        if prelude is None:
            assert size == 0
        else:
            assert list(prelude.frames) == wanted
            assert set(wanted) <= kept
            placement = prelude.placement
            assert placement.write_cells == placement.key_positions == tuple(range(size))
            spans = placement.spans or (QuerySpan(size, size),)
            sees = [span.num_cells for span in spans for _ in range(span.num_frames)]
            assert sees == [min(size, (place // chunk + 1) * chunk) for place in range(size)]
        placement = window.place(start, chunk)
        assert placement.query_positions == tuple(range(size, size + chunk))
        assert placement.num_cells == size + chunk
        assert placement == window.place(start, chunk)
        kept = set(window.recalled())
        assert len(kept) <= first + newest


@given(integers(1, 3), integers(1, 4), integers(2, 30))
def test_an_adaptive_window_asks_only_once_it_is_full(sinks: int, ring: int, frames: int) -> None:
    window = RollingWindow(sinks=sinks, ring=ring, positions=ABSOLUTE, is_adaptive=True)
    for frame in range(frames):
        assert window.place(frame, 1).may_replace_sink == (frame >= sinks + ring)


def test_policies_are_values() -> None:
    """Equal settings make equal policies, so a recipe can be compared, hashed and sent."""
    assert {WithinReach(9), WithinReach(9)} == {WithinReach(9)}
    assert BlendIntoSinks(0.5) == BlendIntoSinks(0.5) != BlendIntoSinks(0.6)
    assert len({Flush(1), Flush(1), Recache(), KeepAll(), OWN_PLACE, FORGET}) == 5


@pytest.mark.parametrize("refresh", [1, 7])
def test_a_refresh_inside_the_window_is_refused(refresh: int) -> None:
    with pytest.raises(ValueError, match="leaves no room for 7"):
        RollingWindow(sinks=3, ring=4, positions=ABSOLUTE, refresh_frames=refresh)
