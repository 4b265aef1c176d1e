"""Where a chunk's keys and values lie, and what happens to a cache row before it. Host integers.

A window (`streamgen.cache.window`, `streamgen.cache.context`) answers with a Placement, which
travels with its row of a batch; `streamgen.cache.kv` carries it out. So a policy of the cache is a
pure function of integers, every rank replays it from the batch, and no tensor decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Positions(StrEnum):
    """Temporal positions that rotary embedding sees."""

    ABSOLUTE = "absolute"
    """The index of the latent frame since the stream began."""
    WINDOW = "window"
    """The place inside the window; keys are stored unrotated, and a stream can last for ever."""


@dataclass(frozen=True, slots=True)
class CellsMoved:
    """Copy cells of a row to other cells of it, all at once: a source may be a target, too."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def cells_changed(self) -> tuple[int, ...]:
        return self.targets


@dataclass(frozen=True, slots=True)
class CellsBlended:
    """target <- keep * target + (1 - keep) * source, keys and values, pair by pair.

    Only sensible where keys are stored unrotated: those of two positions do not mix.
    """

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    keep: float

    @property
    def cells_changed(self) -> tuple[int, ...]:
        return self.targets


@dataclass(frozen=True, slots=True)
class KeysTurned:
    """Rotate keys that are stored rotated on by so many latent frames; fewer than 0: back."""

    cells: tuple[int, ...]
    frames: int

    @property
    def cells_changed(self) -> tuple[int, ...]:
        return self.cells


Edit = CellsMoved | CellsBlended | KeysTurned


@dataclass(frozen=True, slots=True)
class QuerySpan:
    """The next `num_frames` latent frames of a chunk read cells 0 to num_cells - 1."""

    num_frames: int
    num_cells: int


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
    edits: tuple[Edit, ...] = ()
    """What is done to the row before the chunk's first pass, in this order."""
    spans: tuple[QuerySpan, ...] = ()
    """Where frames of one placement read unequally much; empty: all read all `num_cells`."""
    may_replace_sink: bool = False
    """The cell is a proposal: see `streamgen.cache.adaptive`."""


@dataclass(frozen=True, slots=True)
class Prelude:
    """A forward over frames that are finished, before a chunk's first pass: only to write keys.

    `frames` are indices of latent frames of the stream, in the order of the placement's cells.
    """

    frames: tuple[int, ...]
    placement: Placement


class CacheWindow(Protocol):
    """What one cache row of one session holds, as the session sees it."""

    @property
    def begins_at(self) -> int:
        """The first latent frame of the stream that it can hold: 0, or where a scene began."""
        ...

    def prelude(self, first_frame: int, num_frames: int, *, is_switch: bool) -> Prelude | None:
        """What has to run before a new chunk is placed; None: nothing. Changes nothing."""
        ...

    def place(self, first_frame: int, num_frames: int, *, is_switch: bool = False) -> Placement:
        """Place a chunk of latent frames; again for each further pass of the same chunk.

        `is_switch`: the chunk follows another prompt than the one before it. Chunks come in order
        and without gaps. Raises ValueError otherwise, and for a chunk that would overwrite itself.
        Edits come with a chunk's first placement only.
        """
        ...

    def recalled(self) -> tuple[int, ...]:
        """Finished frames whose latents a later prelude may ask for."""
        ...

    def frames(self) -> tuple[int, ...]:
        """Latent frames in the window, oldest first."""
        ...

    def cells_from(self, first_frame: int) -> tuple[int, ...]:
        """Cells of the frames from `first_frame` on that are in the window, oldest first."""
        ...
