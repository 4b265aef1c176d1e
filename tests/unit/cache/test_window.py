from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis.strategies import composite, integers, sampled_from

from streamgen.cache.window import Placement, Positions, RollingWindow

ABSOLUTE, WINDOW = Positions.ABSOLUTE, Positions.WINDOW


@dataclass(frozen=True)
class Stream:
    """A window, and the sizes of the chunks that roll through it."""

    sinks: int
    ring: int
    positions: Positions
    first: int
    later: int
    chunks: int

    def window(self) -> RollingWindow:
        return RollingWindow(sinks=self.sinks, ring=self.ring, positions=self.positions)

    def spans(self) -> list[tuple[int, int]]:
        """First frame and number of frames of each chunk."""
        starts = [0, *(self.first + number * self.later for number in range(self.chunks - 1))]
        sizes = [self.first] + [self.later] * (self.chunks - 1)
        return list(zip(starts, sizes, strict=True))


@composite
def streams(draw) -> Stream:
    """Windows whose ring holds every chunk; the first chunk may be longer or shorter."""
    later, sinks = draw(integers(1, 4)), draw(integers(0, 5))
    ring = draw(integers(later, 9))
    first = draw(integers(1, sinks + ring))
    positions = draw(sampled_from(Positions))
    return Stream(sinks, ring, positions, first, later, draw(integers(1, 30)))


def test_an_example_by_hand() -> None:
    """Two sinks, three ring cells, chunks of one: frame 7 finds 0, 1, 5, 6 beside itself."""
    window = RollingWindow(sinks=2, ring=3, positions=WINDOW)
    placements = [window.place(frame, 1) for frame in range(8)]
    assert [p.write_cells[0] for p in placements] == [0, 1, 2, 3, 4, 2, 3, 4]
    assert placements[-1] == Placement((4,), 5, (4,), (0, 1, 2, 3, 4))
    assert placements[-2] == Placement((3,), 5, (4,), (0, 1, 3, 4, 2))
    assert window.frames() == (0, 1, 5, 6, 7)


def test_the_first_chunk_of_stream_diffusion_v2_fills_sinks_and_ring() -> None:
    """One frame more than later chunks have: it lies in all sinks and the ring's first cell."""
    window = RollingWindow(sinks=2, ring=2, positions=ABSOLUTE)
    assert window.place(0, 3) == Placement((0, 1, 2), 3, (0, 1, 2), (0, 1, 2))
    assert window.place(3, 2) == Placement((3, 2), 4, (3, 4), (0, 1, 4, 3))
    assert window.frames() == (0, 1, 3, 4)


@given(streams())
def test_the_window_keeps_the_sinks_and_the_newest(stream: Stream) -> None:
    window, end = stream.window(), 0
    for start, size in stream.spans():
        window.place(start, size)
        end = start + size
    first, newest = range(min(stream.sinks, end)), range(max(0, end - stream.ring), end)
    assert set(window.frames()) == set(first) | {f for f in newest if f >= stream.sinks}
    assert list(window.frames()) == sorted(window.frames())


@given(streams())
def test_what_is_read_lies_where_it_was_written(stream: Stream) -> None:
    """A store of one integer a cell, driven by placements alone, holds the window at every chunk:
    no cell is written twice while it is visible, and cells that are read are those from 0 up."""
    window, store = stream.window(), {}
    for start, size in stream.spans():
        placement = window.place(start, size)
        assert len(set(placement.write_cells)) == size
        visible = set(window.frames())
        for cell, frame in zip(placement.write_cells, range(start, start + size), strict=True):
            assert store.get(cell) not in visible
            store[cell] = frame
        read = [store[cell] for cell in range(placement.num_cells)]
        assert sorted(read) == list(window.frames())
        assert placement.num_cells <= window.num_cells == stream.sinks + stream.ring


@given(streams())
def test_positions_are_frame_indices_or_places_in_the_window(stream: Stream) -> None:
    """Queries and keys agree on where a frame sits; window positions count from 0 without gaps."""
    window = stream.window()
    for start, size in stream.spans():
        placement = window.place(start, size)
        by_cell = placement.key_positions
        assert tuple(by_cell[cell] for cell in placement.write_cells) == placement.query_positions
        if stream.positions is ABSOLUTE:
            assert sorted(by_cell) == list(window.frames())
            assert placement.query_positions == tuple(range(start, start + size))
        else:
            assert sorted(by_cell) == list(range(len(by_cell)))
            assert placement.query_positions == tuple(range(len(by_cell) - size, len(by_cell)))


@given(streams(), integers(1, 4))
def test_a_chunk_is_placed_alike_in_every_pass(stream: Stream, repeats: int) -> None:
    """Eviction happens once a chunk, not once a pass."""
    window = stream.window()
    for start, size in stream.spans():
        first = window.place(start, size)
        assert all(window.place(start, size) == first for _ in range(repeats))


@settings(max_examples=20)
@given(streams())
def test_a_stream_of_any_length_stays_in_its_window(stream: Stream) -> None:
    """Beyond 5,000 frames (reference tables end at 1,023) all numbers of a placement are bounded
    with window positions; with absolute ones, cells are."""
    window, start, size = stream.window(), 0, stream.first
    placement = window.place(start, size)
    while start < 5_100:
        start, size = start + size, stream.later
        placement = window.place(start, size)
    cells = stream.sinks + stream.ring
    assert placement.num_cells == cells
    assert max(placement.write_cells) < cells
    if stream.positions is WINDOW:
        assert sorted(placement.key_positions) == list(range(cells))
        assert placement.query_positions == tuple(range(cells - size, cells))


@pytest.mark.parametrize(
    ("first_frame", "num_frames"),
    [(5, 2), (2, 1), (1, 2), (0, 2), (3, 2), (4, 0), (2, 3), (-2, 2)],
    ids=["gap", "half", "overlap", "older", "inside", "empty", "longer repeat", "negative"],
)
def test_chunks_out_of_order_are_refused(first_frame: int, num_frames: int) -> None:
    """After frames 0-1 and 2-3, only 4-5 and 2-3 again can follow; refusals change nothing."""
    window = RollingWindow(sinks=1, ring=4, positions=ABSOLUTE)
    window.place(0, 2)
    placement = window.place(2, 2)
    with pytest.raises(ValueError, match="do not follow 4"):
        window.place(first_frame, num_frames)
    assert window.frames() == (0, 1, 2, 3)
    assert window.place(2, 2) == placement


@pytest.mark.parametrize("before", [0, 4])
def test_a_chunk_that_would_overwrite_itself_is_refused(before: int) -> None:
    """In a fresh window the sinks take two of its frames, in a running one none."""
    window = RollingWindow(sinks=2, ring=3, positions=WINDOW)
    for frame in range(before):
        window.place(frame, 1)
    too_long = 6 if before == 0 else 4
    with pytest.raises(ValueError, match="puts 4 latent frames into a ring of 3"):
        window.place(before, too_long)
    assert window.place(before, too_long - 1).num_cells == 5


@pytest.mark.parametrize(("sinks", "ring"), [(-1, 4), (0, 0), (3, -1)])
def test_windows_of_impossible_sizes_are_refused(sinks: int, ring: int) -> None:
    with pytest.raises(ValueError, match="a window needs"):
        RollingWindow(sinks=sinks, ring=ring, positions=ABSOLUTE)
