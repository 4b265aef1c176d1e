"""Frames and clips, and the conventions that every module shares.

Pixels are uint8 RGB, height before width: a frame is [H, W, 3], a clip [T, H, W, 3]. Models see
float pixels in [-1, 1], channels first. Time is in seconds, as float, on the monotonic clock;
`pts_s` counts from the start of a stream. Knows no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""uint8 RGB, [H, W, 3] or [T, H, W, 3]."""

SessionId = NewType("SessionId", int)
PromptId = NewType("PromptId", int)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One RGB picture: `pixels` uint8 [H, W, 3]; its time in the stream; when it was captured."""

    pixels: Pixels
    pts_s: float
    captured_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The T pixel frames of one chunk, uint8 [T, H, W, 3]; `pts_s` is the time of the first one."""

    pixels: Pixels
    pts_s: float
    captured_s: float

    @property
    def num_frames(self) -> int:
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class PictureSize:
    """Height and width of a picture in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"
