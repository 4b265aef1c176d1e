"""Moving test pictures, each a pure function of its index.

A disc follows a Lissajous path over a drifting colour gradient. For tests, for benchmarks without a
camera, and for a first look.
"""

from __future__ import annotations

import math

import numpy as np

from streamgen.clock import Clock
from streamgen.errors import SourceError
from streamgen.media.source import SourceFacts
from streamgen.types import Frame, PictureSize, Pixels


class SyntheticSource:
    """`num_frames` test pictures, or endlessly many if None, as fast as they are read."""

    def __init__(
        self, size: PictureSize, *, fps: float, clock: Clock, num_frames: int | None = None
    ) -> None:
        if min(size.height, size.width) < 1 or fps <= 0:
            raise SourceError(f"no test picture is {size} at {fps:g} frames/s; choose more")
        self._facts = SourceFacts(size=size, fps=fps)
        self._clock = clock
        self._num_frames = num_frames
        self._index = 0

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    def read(self) -> Frame | None:
        if self._index == self._num_frames:
            return None
        pixels = moving_picture(self._index, self._facts.size)
        frame = Frame(
            pixels=pixels, pts_s=self._index / self._facts.fps, captured_s=self._clock.now()
        )
        self._index += 1
        return frame

    def close(self) -> None:
        """Nothing is held."""


def moving_picture(index: int, size: PictureSize) -> Pixels:
    """Test picture number `index`: the same pixels each time; neighbours in time differ."""
    rows_H1, columns_1W = np.ogrid[0 : size.height, 0 : size.width]
    red = (columns_1W * 256 // size.width + 3 * index) % 256
    green = (rows_H1 * 256 // size.height + 2 * index) % 256
    pixels = np.empty((size.height, size.width, 3), np.uint8)
    pixels[..., 0] = red
    pixels[..., 1] = green
    pixels[..., 2] = (64 + 5 * index) % 256
    middle_row = size.height * (0.5 + 0.3 * math.sin(index * 0.13))
    middle_column = size.width * (0.5 + 0.3 * math.cos(index * 0.09))
    radius = max(1.0, min(size.height, size.width) / 6)
    is_inside = (rows_H1 - middle_row) ** 2 + (columns_1W - middle_column) ** 2 < radius**2
    pixels[is_inside] = (255, 255, 255)
    return pixels
