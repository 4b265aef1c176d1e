"""A sink that keeps nothing but the last frame: for tests, benchmarks and dry runs."""

from __future__ import annotations

from streamgen.types import Frame


class NullSink:
    """Counts frames and remembers the newest."""

    def __init__(self) -> None:
        self.num_frames = 0
        self.last_frame: Frame | None = None

    def write(self, frame: Frame) -> None:
        self.num_frames += 1
        self.last_frame = frame

    def close(self) -> None:
        """Nothing is held."""

    def abort(self) -> None:
        """Nothing is held."""
