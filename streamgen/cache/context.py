"""A window that is written anew before every chunk, at positions that never grow. Host integers.

The context of a chunk - the stream's first frames and the newest ones - is computed from its
latents in one forward, under the chunk's own prompt and at positions 0, 1, ...; the chunk follows
directly. So a new prompt reaches the whole history at once, and a stream has no horizon
(krea-ai/realtime-video, release_server.py, `recompute_kv_cache`).
"""

from __future__ import annotations

from streamgen.cache.placement import Placement, Prelude, QuerySpan


class RecomputedContext:
    """A CacheWindow without memory: owns the extent of the newest chunk."""

    begins_at = 0

    def __init__(self, *, first: int, newest: int, chunk_frames: int) -> None:
        """The context is the stream's `first` frames and the `newest` before the chunk.

        `chunk_frames` is how many latent frames attend to each other: the context is causal from
        one such group to the next.
        """
        if first < 0 or newest < 0 or chunk_frames < 1:
            raise ValueError(f"no context has {first} first and {newest} newest frames")
        self._first = first
        self._newest = newest
        self._chunk_frames = chunk_frames
        self._chunk_start = 0
        self._end = 0

    def prelude(self, first_frame: int, num_frames: int, *, is_switch: bool) -> Prelude | None:
        """The context, before every chunk that has one."""
        frames = self._context(first_frame)
        if not frames:
            return None
        size, places = len(frames), tuple(range(len(frames)))
        ends = [*range(self._chunk_frames, size, self._chunk_frames), size]
        spans = tuple(
            QuerySpan(end - start, end) for start, end in zip([0, *ends], ends, strict=False)
        )
        placement = Placement(places, size, places, places, spans=spans if len(spans) > 1 else ())
        return Prelude(frames, placement)

    def place(self, first_frame: int, num_frames: int, *, is_switch: bool = False) -> Placement:
        """See CacheWindow."""
        is_next = first_frame == self._end
        is_repeat = (first_frame, first_frame + num_frames) == (self._chunk_start, self._end)
        if not (is_next or is_repeat) or num_frames < 1:
            raise ValueError(
                f"frames {first_frame} to {first_frame + num_frames} do not follow {self._end}"
            )
        self._chunk_start, self._end = first_frame, first_frame + num_frames
        size = len(self._context(first_frame))
        written = tuple(range(size, size + num_frames))
        return Placement(written, size + num_frames, written, tuple(range(size + num_frames)))

    def recalled(self) -> tuple[int, ...]:
        return self._context(self._end)

    def frames(self) -> tuple[int, ...]:
        """The context of the newest chunk, and the chunk."""
        return (*self._context(self._chunk_start), *range(self._chunk_start, self._end))

    def cells_from(self, first_frame: int) -> tuple[int, ...]:
        """See CacheWindow."""
        return tuple(cell for cell, frame in enumerate(self.frames()) if frame >= first_frame)

    def _context(self, end: int) -> tuple[int, ...]:
        first = range(min(self._first, end))
        return (*first, *range(max(len(first), end - self._newest), end))
