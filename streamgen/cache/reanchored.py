"""A window that begins in the midst of a stream: what was before a new scene is not looked at.

The first latent frames of the scene become its sinks, as those of the stream were before. Host
integers only.
"""

from __future__ import annotations

from dataclasses import replace

from streamgen.cache.placement import CacheWindow, Placement, Prelude


class ReanchoredWindow:
    """A CacheWindow around a new one, which counts from the stream's frame `first_frame`."""

    def __init__(self, window: CacheWindow, first_frame: int) -> None:
        self._window = window
        self._first_frame = first_frame

    @property
    def begins_at(self) -> int:
        return self._first_frame

    def prelude(self, first_frame: int, num_frames: int, *, is_switch: bool) -> Prelude | None:
        prelude = self._window.prelude(
            first_frame - self._first_frame, num_frames, is_switch=is_switch
        )
        return None if prelude is None else replace(prelude, frames=self._counted(prelude.frames))

    def place(self, first_frame: int, num_frames: int, *, is_switch: bool = False) -> Placement:
        return self._window.place(first_frame - self._first_frame, num_frames, is_switch=is_switch)

    def recalled(self) -> tuple[int, ...]:
        return self._counted(self._window.recalled())

    def frames(self) -> tuple[int, ...]:
        return self._counted(self._window.frames())

    def cells_from(self, first_frame: int) -> tuple[int, ...]:
        return self._window.cells_from(first_frame - self._first_frame)

    def _counted(self, frames: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._first_frame + frame for frame in frames)
