"""The window of chunks that are denoised together, and the clean frames before them. Host integers.

A row has `sinks` cells for the stream's first latent frames, which stay, and `ring` cells for the
newest ones, which roll: those of the window, noisy, whose keys every pass overwrites, and clean
ones directly before it, as many as the ring has room for. Positions are those of the window, so a
stream can last for ever: the sinks come directly before the clean frames, the anchor of Rolling
Forcing (Liu et al. 2025, arXiv:2509.25161; TencentARC/RollingForcing a1477d0, causal_model.py).
"""

from __future__ import annotations

from streamgen.cache.placement import Placement, Prelude


class JointWindow:
    """A CacheWindow whose chunks may begin anywhere in the one before, and never end before it.

    Owns the extent of the newest one.
    """

    begins_at = 0

    def __init__(self, *, sinks: int, ring: int) -> None:
        if sinks < 0 or ring < 1:
            raise ValueError(f"a window needs sinks >= 0 and ring >= 1, not {sinks} and {ring}")
        self._sinks = sinks
        self._ring = ring
        self._start = 0
        self._end = 0

    def prelude(self, first_frame: int, num_frames: int, *, is_switch: bool) -> Prelude | None:
        return None

    def place(self, first_frame: int, num_frames: int, *, is_switch: bool = False) -> Placement:
        """See CacheWindow."""
        end = first_frame + num_frames
        if not (self._start <= first_frame <= self._end <= end) or num_frames < 1:
            raise ValueError(
                f"frames {first_frame} to {end} do not follow {self._start} to {self._end}"
            )
        if end - max(first_frame, self._sinks) > self._ring:
            raise ValueError(f"{num_frames} latent frames do not fit into a ring of {self._ring}")
        self._start, self._end = first_frame, end
        held = self.frames()
        position_of = {frame: place for place, frame in enumerate(held)}
        written = range(first_frame, end)
        return Placement(
            write_cells=self.cells(written),
            num_cells=len(held),
            query_positions=tuple(position_of[frame] for frame in written),
            key_positions=tuple(position_of[frame] for frame in sorted(held, key=self._cell)),
        )

    def cells(self, frames: range) -> tuple[int, ...]:
        """Where frames that the window holds lie."""
        return tuple(self._cell(frame) for frame in frames)

    def cells_from(self, first_frame: int) -> tuple[int, ...]:
        """See CacheWindow."""
        return tuple(self._cell(frame) for frame in self.frames() if frame >= first_frame)

    def recalled(self) -> tuple[int, ...]:
        return ()

    def frames(self) -> tuple[int, ...]:
        """Latent frames in the window, oldest first."""
        rolling = range(max(self._sinks, self._end - self._ring), self._end)
        return (*range(min(self._sinks, self._end)), *rolling)

    def _cell(self, frame: int) -> int:
        if frame < self._sinks:
            return frame
        return self._sinks + (frame - self._sinks) % self._ring
