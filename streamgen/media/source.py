"""What a source of frames promises.

The contract is tested on every implementation in tests/contract/test_frame_source.py. Knows
neither files nor cameras nor threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from streamgen.types import Frame, PictureSize


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of a source before its first frame: it holds for all of its frames."""

    size: PictureSize  # of every frame, as it is to be seen: turned upright, pixels square
    fps: float  # frames a second on average, > 0
    is_endless: bool = False  # it goes on until somebody closes it
    is_live: bool = False  # it goes on whether or not it is read: late readers skip, never lag


class FrameSource(Protocol):
    """A camera, a file or a generator of pictures, read by one thread.

    A constructor opens the source or raises SourceError, so that a mistake shows at the start.
    """

    @property
    def facts(self) -> SourceFacts: ...

    def read(self) -> Frame | None:
        """Wait for the next frame; None at the end, and again None after it.

        `pts_s` starts at 0 and grows strictly. The caller must not write into the pixels: a source
        may give the same array again. Raises SourceError if the source breaks.
        """
        ...

    def close(self) -> None:
        """Let go of the device or the file; called exactly once, and nothing is read after it."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """A source or device whose `read` or `grab` may wait for long, and need not to the end."""

    def interrupt(self) -> None:
        """Let one that waits come back soon if that is possible; from any thread, before `close`,
        and nothing is read after it."""
        ...
