"""Fitting a picture into a size, mirroring and turning it: uint8 RGB [H, W, 3] in and out.

Shrinking averages areas (cv2.INTER_AREA, no moire), growing is bicubic. Knows no time, no files and
no float pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np

from streamgen.types import PictureSize, Pixels

Color = tuple[int, int, int]
"""Red, green, blue, each 0..255."""

BLACK: Color = (0, 0, 0)


class Fit(Enum):
    """What gives way when a picture and its place differ in shape."""

    CROP = "crop"  # fills the place, loses two borders
    LETTERBOX = "letterbox"  # shows everything, adds two bars
    STRETCH = "stretch"  # fills and shows everything, distorts


@dataclass(frozen=True, slots=True)
class Framing:
    """How the pictures of one source become pictures of `size`."""

    size: PictureSize
    fit: Fit = Fit.CROP
    quarter_turns: int = 0  # counter-clockwise, before fitting; any integer
    mirrored: bool = False  # left and right swapped, after turning: as in a mirror
    bar_color: Color = BLACK  # of the bars that Fit.LETTERBOX adds

    def apply(self, pixels: Pixels) -> Pixels:
        """Turn, fit, then mirror; gives the same array back if there is nothing to do."""
        pixels = turn(pixels, self.quarter_turns)
        if self.fit is Fit.CROP:
            pixels = crop(pixels, self.size)
        elif self.fit is Fit.LETTERBOX:
            pixels = letterbox(pixels, self.size, self.bar_color)
        else:
            pixels = stretch(pixels, self.size)
        return mirror(pixels) if self.mirrored else pixels


def size_of(pixels: Pixels) -> PictureSize:
    """Height and width of a picture; ValueError if it is not uint8 [H, W, 3] or is empty."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(f"a picture is uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    return PictureSize(height=pixels.shape[0], width=pixels.shape[1])


def crop(pixels: Pixels, size: PictureSize) -> Pixels:
    """Fill `size` with the largest part around the centre that has its shape."""
    here = size_of(pixels)
    scale = max(size.height / here.height, size.width / here.width)
    height = min(here.height, max(1, round(size.height / scale)))
    width = min(here.width, max(1, round(size.width / scale)))
    top, left = (here.height - height) // 2, (here.width - width) // 2
    return stretch(pixels[top : top + height, left : left + width], size)


def letterbox(pixels: Pixels, size: PictureSize, bar_color: Color = BLACK) -> Pixels:
    """Show the whole picture in the middle of `size`, with bars of `bar_color` beside it."""
    here = size_of(pixels)
    if here == size:
        return pixels
    scale = min(size.height / here.height, size.width / here.width)
    height = min(size.height, max(1, round(here.height * scale)))
    width = min(size.width, max(1, round(here.width * scale)))
    top, left = (size.height - height) // 2, (size.width - width) // 2
    fitted = np.empty((size.height, size.width, 3), np.uint8)
    fitted[:] = bar_color
    fitted[top : top + height, left : left + width] = stretch(pixels, PictureSize(height, width))
    return fitted


def stretch(pixels: Pixels, size: PictureSize) -> Pixels:
    """Resize to `size`; each axis shrinks by averaging or grows by bicubic interpolation."""
    here = size_of(pixels)
    smaller = PictureSize(min(here.height, size.height), min(here.width, size.width))
    if smaller != here:
        pixels = _resized(pixels, smaller, cv2.INTER_AREA)
    if smaller != size:
        pixels = _resized(pixels, size, cv2.INTER_CUBIC)
    return pixels


def mirror(pixels: Pixels) -> Pixels:
    """Swap left and right."""
    return np.ascontiguousarray(pixels[:, ::-1])


def turn(pixels: Pixels, quarter_turns: int) -> Pixels:
    """Turn counter-clockwise by 90 degrees times `quarter_turns`, which may be negative."""
    if quarter_turns % 4 == 0:
        return pixels
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns))


def pad_to_even(pixels: Pixels) -> Pixels:
    """Repeat the last row or column where there is an odd number of them: 4:2:0 needs pairs."""
    here = size_of(pixels)
    bottom, right = here.height % 2, here.width % 2
    if not bottom and not right:
        return pixels
    return np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="edge")


def _resized(pixels: Pixels, size: PictureSize, interpolation: int) -> Pixels:
    resized = cv2.resize(pixels, (size.width, size.height), interpolation=interpolation)
    return np.asarray(resized, dtype=np.uint8)


def enlarged(pixels: Pixels, factor: int) -> Pixels:
    """A frame [H, W, 3] made `factor` times as wide and as high, smoothly."""
    size = size_of(pixels)
    return _resized(pixels, PictureSize(size.height * factor, size.width * factor), cv2.INTER_CUBIC)
