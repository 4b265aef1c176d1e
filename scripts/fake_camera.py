"""A film for Chromium's fake camera: a moving scene, and in each picture the number of the picture.

The number stands above the scene as eight blocks, black or white: seven bits and one that makes
the number of white ones even. So whoever sees a picture at the end of a pipeline knows which one it
was, even behind a codec of 16 pixels. Y4M, for Chromium plays it at its full rate (MJPEG at a
third).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from streamgen.types import PictureSize, Pixels

NUM_BITS = 7
NUM_BLOCKS = NUM_BITS + 1
BAND = 4  # one part in so many of the height
FPS = 30


def scene(index: int, size: PictureSize) -> Pixels:
    """Grey hills that drift, and a disc before them: without a colour of its own."""
    columns = np.linspace(0, 4 * np.pi, size.width)
    rows_H1 = np.linspace(0, 1, size.height)[:, None]
    hills = 0.5 + 0.25 * np.sin(columns + index / 10) * np.cos(columns / 3)
    grey_HW = np.where(rows_H1 > hills[None], 90 + 60 * rows_H1, 200 - 60 * rows_H1)
    picture = np.repeat(grey_HW[..., None].astype(np.uint8), 3, axis=2)
    middle = (
        int(size.width * (0.5 + 0.3 * np.cos(index / 20))),
        int(size.height * (0.6 + 0.2 * np.sin(index / 15))),
    )
    return np.asarray(cv2.circle(picture, middle, size.height // 8, (250, 250, 250), -1), np.uint8)


def with_number(picture: Pixels, number: int) -> Pixels:
    """Write a number in 0 to 127 into the band above."""
    height, width = picture.shape[:2]
    numbered = picture.copy()
    bits = [number >> bit & 1 for bit in range(NUM_BITS)]
    for index, bit in enumerate([*bits, sum(bits) % 2]):
        left, right = (place * width // NUM_BLOCKS for place in (index, index + 1))
        numbered[: height // BAND, left:right] = 255 * bit
    return numbered


def read_number(picture: Pixels) -> int | None:
    """The number in the band of a picture of any size; None if it cannot be right."""
    height, width = picture.shape[:2]
    row = picture[height // BAND // 2].astype(int).mean(axis=1)
    blocks = [row[(2 * index + 1) * width // (2 * NUM_BLOCKS)] > 127 for index in range(NUM_BLOCKS)]
    if sum(blocks) % 2:
        return None
    return sum(1 << bit for bit in range(NUM_BITS) if blocks[bit])


def write_film(path: Path, size: PictureSize, num_frames: int, *, has_numbers: bool) -> None:
    """A Y4M file that can be played round and round."""
    with path.open("wb") as film:
        film.write(f"YUV4MPEG2 W{size.width} H{size.height} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for index in range(num_frames):
            picture = scene(index, size)
            if has_numbers:
                picture = with_number(picture, index)
            film.write(b"FRAME\n")
            film.write(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).tobytes())
