"""The window of chunks that are denoised together, as host integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from streamgen.cache.joint import JointWindow
from streamgen.cache.placement import Placement


def windows(num_steps: int, chunk: int, num_chunks: int) -> list[range]:
    """Latent frames of every window of a stream, from the first chunk to the last."""
    return [
        range(max(0, w - num_steps + 1) * chunk, min(num_chunks, w + 1) * chunk)
        for w in range(num_chunks + num_steps - 1)
    ]


def placements(
    window: JointWindow, num_steps: int, chunk: int, num_chunks: int
) -> list[tuple[range, Placement]]:
    return [
        (frames, window.place(frames.start, len(frames)))
        for frames in windows(num_steps, chunk, num_chunks)
    ]


@given(integers(0, 4), integers(1, 4), integers(1, 3), integers(0, 5), integers(1, 12))
def test_a_window_reads_itself_what_lies_before_it_and_the_sinks(
    sinks: int, num_steps: int, chunk: int, room: int, num_chunks: int
) -> None:
    """Each frame once, in the order of time, without gaps in positions; what it holds was written
    by the newest window that had it."""
    ring = num_steps * chunk + room
    window, frame_of = JointWindow(sinks=sinks, ring=ring), dict[int, int]()
    for frames, placement in placements(window, num_steps, chunk, num_chunks):
        frame_of |= dict(zip(placement.write_cells, frames, strict=True))
        held = [frame_of[cell] for cell in range(placement.num_cells)]
        first = max(sinks, frames.stop - ring)
        assert sorted(held) == [
            *range(min(sinks, frames.stop)),
            *range(first, frames.stop),
        ]
        position_of = dict(zip(held, placement.key_positions, strict=True))
        assert [position_of[frame] for frame in sorted(held)] == list(range(len(held)))
        assert placement.query_positions == tuple(position_of[frame] for frame in frames)
        assert placement.edits == () == placement.spans


@given(integers(0, 3), integers(1, 4), integers(1, 3), integers(0, 4))
def test_placements_come_round_for_ever(sinks: int, num_steps: int, chunk: int, room: int) -> None:
    """With the ring, exactly: no number grows, so neither can a stream end nor drift."""
    ring = (num_steps + room) * chunk
    placed = [p for _, p in placements(JointWindow(sinks=sinks, ring=ring), num_steps, chunk, 90)]
    period = num_steps + room
    settled = placed[2 * period + sinks : 90]
    assert settled[period:] == settled[:-period]


def test_the_published_windows_read_an_anchor_and_one_finished_chunk() -> None:
    """Five chunks of three frames in a budget of 21: 3 + 3 + 15, more of the past at the end."""
    placed = placements(JointWindow(sinks=3, ring=18), 5, 3, 12)
    assert [p.num_cells for _, p in placed[:7]] == [3, 6, 9, 12, 15, 18, 21]
    assert [p.query_positions[0] for _, p in placed] == [*[0] * 5, 3, *[6] * 6, 9, 12, 15, 18]
    assert all(p.num_cells == 21 for _, p in placed[6:])


def test_what_does_not_follow_is_refused() -> None:
    """A window with a gap before it, one that goes back, ends early, or is wider than the ring."""
    window = JointWindow(sinks=1, ring=4)
    window.place(0, 2)
    window.place(1, 3)
    for first, num_frames in ((0, 4), (5, 1), (2, 1), (2, 0), (3, 6)):
        with pytest.raises(ValueError, match="do not f"):
            window.place(first, num_frames)
    with pytest.raises(ValueError, match="sinks >= 0 and ring >= 1"):
        JointWindow(sinks=0, ring=0)
