"""Which latent frames a chunk may look at, and in which cells they lie. Host integers only.

A cache row has `sinks` cells for the first latent frames of a stream, which stay, and `ring` cells
for the newest ones, which roll: frame f lies in cell f while f < sinks, else in cell
sinks + (f - base) mod ring, where base is `sinks` until a flush sets it. In a steady tick nothing
is ever moved. Sinks: Xiao et al. 2023, arXiv:2309.17453.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamgen.cache.placement import CellsMoved, Edit, KeysTurned, Placement, Positions, Prelude
from streamgen.cache.policies import (
    FORGET,
    KEEP_ALL,
    OWN_PLACE,
    Eviction,
    Flush,
    OnSwitch,
    Recache,
    SinkPlace,
)

__all__ = ["Placement", "Positions", "RollingWindow"]


class RollingWindow:
    """The window of one cache row of one session: a CacheWindow over sinks and a ring.

    Owns four integers: where the newest chunk starts and ends, which frame lies in the first cell
    of the ring, and by how much positions have been set back.
    """

    begins_at = 0

    def __init__(
        self,
        *,
        sinks: int,
        ring: int,
        positions: Positions,
        sink_place: SinkPlace = OWN_PLACE,
        eviction: Eviction = FORGET,
        on_switch: OnSwitch = KEEP_ALL,
        refresh_frames: int = 0,
        is_adaptive: bool = False,
    ) -> None:
        """`refresh_frames`: absolute positions are set back when a chunk would begin there or
        beyond; 0: never. Only where sinks have their own place and keys are stored rotated.

        `is_adaptive`: once the window is full, a new frame may take the cell of a sink instead
        (`streamgen.cache.adaptive`); chunks of one frame and one pass only."""
        if sinks < 0 or ring < 1:
            raise ValueError(f"a window needs sinks >= 0 and ring >= 1, not {sinks} and {ring}")
        if 0 < refresh_frames <= sinks + ring:
            raise ValueError(f"a refresh at {refresh_frames} leaves no room for {sinks + ring}")
        self._sinks = sinks
        self._ring = ring
        self._positions = positions
        self._sink_place = sink_place
        self._eviction = eviction
        self._on_switch = on_switch
        self._refresh_frames = refresh_frames
        self._is_adaptive = is_adaptive
        self._chunk_start = 0
        self._end = 0
        self._base = sinks
        self._set_back = 0

    @property
    def num_cells(self) -> int:
        return self._sinks + self._ring

    def prelude(self, first_frame: int, num_frames: int, *, is_switch: bool) -> Prelude | None:
        """The recache of a new prompt, where that is the policy."""
        if not (is_switch and isinstance(self._on_switch, Recache)) or self._end == 0:
            return None
        assert first_frame == self._end, "a prelude comes before its chunk is placed"
        frames = self.recalled()
        return Prelude(frames, self._placement(frames, ()))

    def place(self, first_frame: int, num_frames: int, *, is_switch: bool = False) -> Placement:
        """See CacheWindow."""
        is_next = first_frame == self._end
        is_repeat = (first_frame, first_frame + num_frames) == (self._chunk_start, self._end)
        if not (is_next or is_repeat) or num_frames < 1:
            raise ValueError(
                f"frames {first_frame} to {first_frame + num_frames} do not follow {self._end}"
            )
        is_full = first_frame >= self.num_cells
        assert not (self._is_adaptive and is_full) or (is_next and num_frames == 1)
        in_ring = first_frame + num_frames - max(first_frame, self._sinks)
        if in_ring > self._ring:
            raise ValueError(f"a chunk puts {in_ring} latent frames into a ring of {self._ring}")
        edits = self._advance(first_frame, num_frames, is_switch) if is_next else ()
        placement = self._placement(range(first_frame, first_frame + num_frames), edits)
        return (
            replace(placement, may_replace_sink=True)
            if self._is_adaptive and is_full
            else placement
        )

    def frames(self) -> tuple[int, ...]:
        """Latent frames in the window, oldest first."""
        return (*range(min(self._sinks, self._end)), *self._rolling())

    def cells_from(self, first_frame: int) -> tuple[int, ...]:
        """See CacheWindow."""
        return tuple(self._cell(frame) for frame in self.frames() if frame >= first_frame)

    def recalled(self) -> tuple[int, ...]:
        """Frames whose latents a recache would read: the ring, and sinks until it has rolled."""
        if not isinstance(self._on_switch, Recache):
            return ()
        return self.frames() if self._end <= self.num_cells else tuple(self._rolling())

    def _rolling(self) -> range:
        """Frames in the ring."""
        return range(max(self._base, self._end - self._ring), self._end)

    def _cell(self, frame: int) -> int:
        if frame < self._sinks:
            return frame
        return self._sinks + (frame - self._base) % self._ring

    def _advance(self, first_frame: int, num_frames: int, is_switch: bool) -> tuple[Edit, ...]:
        """Let the next chunk in; returns what that does to cells."""
        edits: list[Edit] = []
        if is_switch and isinstance(self._on_switch, Flush):
            edits += self._flush(self._on_switch.frames)
        before = self._rolling()
        self._chunk_start, self._end = first_frame, first_frame + num_frames
        evicted = [(frame, self._cell(frame)) for frame in before if frame < self._rolling().start]
        if evicted:
            edits += self._eviction.edits(evicted, self._sinks)
        edits += self._refresh()
        return tuple(edits)

    def _flush(self, num_kept: int) -> list[Edit]:
        """Forget all of the ring but its newest frames, which move to its front."""
        rolling = self._rolling()
        if len(rolling) <= num_kept:
            return []
        kept = rolling[len(rolling) - num_kept :]
        sources = tuple(self._cell(frame) for frame in kept)
        self._base = self._end - num_kept
        targets = tuple(self._cell(frame) for frame in kept)
        return [] if sources == targets else [CellsMoved(sources, targets)]

    def _refresh(self) -> list[Edit]:
        """Set positions back, so that what the ring keeps follows the sinks directly.

        When and where: StreamDiffusionV2 c5a0f20, streamv2v/inference.py, `t_refresh`. There the
        kept keys stay where they were, in the future of the next frames; here they are turned
        back along with the positions, so that frames of the ring notice nothing.
        """
        if not self._refresh_frames:
            return []
        if self._chunk_start - self._set_back < self._refresh_frames:
            return []
        oldest = self._rolling().start
        back = oldest - self._set_back - self._sinks
        self._set_back += back
        cells = tuple(self._cell(frame) for frame in range(oldest, self._chunk_start))
        if self._is_adaptive:  # only the device knows which of them the new frame takes
            cells = tuple(range(self._sinks, self.num_cells))
        return [KeysTurned(cells, -back)] if cells else []

    def _placement(self, written: Sequence[int], edits: tuple[Edit, ...]) -> Placement:
        held = self.frames()
        position_of = self._position_of(held, written)
        by_cell = sorted((self._cell(frame), frame) for frame in held)
        return Placement(
            write_cells=tuple(self._cell(frame) for frame in written),
            num_cells=len(by_cell),
            query_positions=tuple(position_of[frame] for frame in written),
            key_positions=tuple(position_of[frame] for _, frame in by_cell),
            edits=edits,
        )

    def _position_of(self, held: Sequence[int], written: Sequence[int]) -> dict[int, int]:
        """Position of every frame in the window, as a chunk of it sees it."""
        if self._positions is Positions.WINDOW:
            position_of = {frame: place for place, frame in enumerate(held)}
        else:
            position_of = {frame: frame - self._set_back for frame in held}
            position_of |= {frame: frame for frame in held if frame < self._sinks}
        if written[0] >= self._sinks > 0:
            others = [position_of[frame] for frame in held if frame >= self._sinks]
            places = self._sink_place.positions(self._sinks, others, len(written))
            position_of |= dict(enumerate(places))
        return position_of
