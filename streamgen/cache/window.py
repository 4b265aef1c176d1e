"""Which latent frames a chunk may look at, and in which cells they lie. Host integers only.

A cache row has `sinks` cells for the first latent frames of a stream, which stay, and `ring` cells
for the newest ones, which roll: frame f lies in cell f while f < sinks, else in cell
sinks + (f - sinks) mod ring. Nothing is ever moved. Sinks: Xiao et al. 2023, arXiv:2309.17453.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Positions(StrEnum):
    """Temporal positions that rotary embedding sees."""

    ABSOLUTE = "absolute"
    """The index of the latent frame since the stream began; keys are stored rotated."""
    WINDOW = "window"
    """The place inside the window; keys are stored unrotated, and a stream can last for ever."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one chunk writes and what it reads, in one cache row."""

    write_cells: tuple[int, ...]
    """A cell for each latent frame of the chunk."""
    num_cells: int
    """Cells 0 to num_cells - 1 are read; they include those just written."""
    query_positions: tuple[int, ...]
    """Temporal position of each latent frame of the chunk."""
    key_positions: tuple[int, ...]
    """Temporal position of each cell that is read, in the order of cells."""


class RollingWindow:
    """The window of one cache row of one session. Owns nothing but the newest frame's index."""

    def __init__(self, *, sinks: int, ring: int, positions: Positions) -> None:
        if sinks < 0 or ring < 1:
            raise ValueError(f"a window needs sinks >= 0 and ring >= 1, not {sinks} and {ring}")
        self._sinks = sinks
        self._ring = ring
        self._positions = positions
        self._chunk_start = 0
        self._end = 0

    @property
    def num_cells(self) -> int:
        return self._sinks + self._ring

    def place(self, first_frame: int, num_frames: int) -> Placement:
        """Place a chunk of latent frames; again for each further pass of the same chunk.

        Chunks come in order and without gaps. Raises ValueError otherwise, and for a chunk that
        would overwrite its own frames.
        """
        is_next = first_frame == self._end
        is_repeat = (first_frame, first_frame + num_frames) == (self._chunk_start, self._end)
        if not (is_next or is_repeat) or num_frames < 1:
            raise ValueError(
                f"frames {first_frame} to {first_frame + num_frames} do not follow {self._end}"
            )
        in_ring = first_frame + num_frames - max(first_frame, self._sinks)
        if in_ring > self._ring:
            raise ValueError(f"a chunk puts {in_ring} latent frames into a ring of {self._ring}")
        self._chunk_start, self._end = first_frame, first_frame + num_frames
        by_cell = sorted((self._cell(frame), frame) for frame in self.frames())
        held = sorted(frame for _, frame in by_cell)
        place_of = {frame: index for index, frame in enumerate(held)}
        if self._positions is Positions.ABSOLUTE:
            place_of = {frame: frame for frame in held}
        written = range(first_frame, first_frame + num_frames)
        return Placement(
            write_cells=tuple(self._cell(frame) for frame in written),
            num_cells=len(by_cell),
            query_positions=tuple(place_of[frame] for frame in written),
            key_positions=tuple(place_of[frame] for _, frame in by_cell),
        )

    def frames(self) -> tuple[int, ...]:
        """Latent frames in the window, oldest first."""
        sinks = range(min(self._sinks, self._end))
        newest = range(max(self._sinks, self._end - self._ring), self._end)
        return (*sinks, *newest)

    def _cell(self, frame: int) -> int:
        if frame < self._sinks:
            return frame
        return self._sinks + (frame - self._sinks) % self._ring
