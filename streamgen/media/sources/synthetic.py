"""Moving test pictures, each a pure function of its index.

A disc follows a Lissajous path over a drifting colour gradient; or colour bars stand still under a
line that wanders; or the picture's number is drawn as a code that survives compression, to measure
latency by. For tests, for benchmarks without a camera, and for a first look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from streamgen.clock import Clock
from streamgen.errors import SourceError
from streamgen.media.source import SourceFacts
from streamgen.types import Frame, PictureSize, Pixels


class SyntheticSource:
    """`num_frames` test pictures, or endlessly many if None, as fast as they are read."""

    def __init__(
        self,
        size: PictureSize,
        *,
        fps: float,
        clock: Clock,
        num_frames: int | None = None,
        picture: Callable[[int, PictureSize], Pixels] | None = None,
    ) -> None:
        """`picture` makes number n in a size; `moving_picture` if None."""
        if min(size.height, size.width) < 1 or fps <= 0:
            raise SourceError(f"no test picture is {size} at {fps:g} frames/s; choose more")
        self._facts = SourceFacts(size=size, fps=fps, is_endless=num_frames is None)
        self._clock = clock
        self._num_frames = num_frames
        self._picture = picture or moving_picture
        self._index = 0

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    def read(self) -> Frame | None:
        if self._index == self._num_frames:
            return None
        pixels = self._picture(self._index, self._facts.size)
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


def colour_bars(index: int, size: PictureSize) -> Pixels:
    """Eight bars, white to black as television has them, and a line that crosses in 100 frames."""
    bar_W = np.arange(size.width) * len(BARS) // size.width
    pixels = np.empty((size.height, size.width, 3), np.uint8)
    pixels[:] = np.asarray(BARS, np.uint8)[bar_W]
    pixels[(index % LINE_PERIOD) * size.height // LINE_PERIOD] = 255 - pixels[0]
    return pixels


def time_code(index: int, size: PictureSize) -> Pixels:
    """Number `index` in CODE_BITS fields, first the lowest bit: white is 1, black is 0, on grey.

    Fields fill the middle third of the height; `read_time_code` reads them back, also after
    resizing and compression.
    """
    pixels = np.full((size.height, size.width, 3), 128, np.uint8)
    top, bottom = size.height // 3, -(-2 * size.height // 3)
    for bit in range(CODE_BITS):
        left, right = bit * size.width // CODE_BITS, (bit + 1) * size.width // CODE_BITS
        pixels[top:bottom, left:right] = 255 * (index >> bit & 1)
    return pixels


def read_time_code(pixels: Pixels) -> int:
    """The number that `time_code` drew, modulo 2 ** CODE_BITS."""
    height, width = pixels.shape[:2]
    row = pixels[height // 2]
    edges = [bit * width // CODE_BITS for bit in range(CODE_BITS + 1)]
    middles = [(left + right) // 2 for left, right in pairwise(edges)]
    return sum(int(row[middle].mean() > 127) << bit for bit, middle in enumerate(middles))


BARS = (
    (255, 255, 255), (255, 255, 0), (0, 255, 255), (0, 255, 0),
    (255, 0, 255), (255, 0, 0), (0, 0, 255), (0, 0, 0),
)  # fmt: skip
LINE_PERIOD = 100  # frames in which the line crosses the picture
CODE_BITS = 16
PATTERNS: Mapping[str, Callable[[int, PictureSize], Pixels]] = {
    "bars": colour_bars,
    "timecode": time_code,
}
"""Test pictures by name, besides `moving_picture`."""
