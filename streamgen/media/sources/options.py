"""What may stand after a source's name: `webcam:0,size=1280x720,fps=30`."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

from streamgen.errors import ConfigError
from streamgen.types import PictureSize

MAX_SIDE = 16384  # pixels
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class NamedSource:
    """The part before the first comma, and the wishes after it; None where there is none."""

    name: str
    size: PictureSize | None = None
    fps: float | None = None
    corner: tuple[int, int] | None = None  # left and top, in pixels

    @classmethod
    def parse(cls, scheme: str, rest: str, *, known: Collection[str]) -> NamedSource:
        """Split what stands after `scheme`:. Raises ConfigError for a wish that is not known."""
        name, *wishes = rest.split(",")
        size: PictureSize | None = None
        fps: float | None = None
        corner: tuple[int, int] | None = None
        for wish in wishes:
            key, _, value = wish.partition("=")
            if key not in known:
                choice = ", ".join(f"{one}=" for one in known)
                raise ConfigError(f"{scheme}: knows no {key!r}; after the comma it takes {choice}")
            if key == "size":
                size = parse_size(scheme, value)
            elif key == "at":
                corner = _parse_corner(scheme, value)
            else:
                fps = _parse_fps(scheme, value)
        return cls(name, size, fps, corner)


def parse_size(scheme: str, value: str) -> PictureSize:
    """Width x height. Raises ConfigError."""
    match = _SIZE.fullmatch(value)
    size = PictureSize(int(match[2]), int(match[1])) if match else PictureSize(0, 0)
    if not (1 <= size.height <= MAX_SIDE and 1 <= size.width <= MAX_SIDE):
        raise ConfigError(f"{scheme}: size={value} is no size; write size=1280x720")
    return size


def _parse_corner(scheme: str, value: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ConfigError(f"{scheme}: at={value} is no place; write at=100x200, left and top")
    return int(match[1]), int(match[2])


def _parse_fps(scheme: str, value: str) -> float:
    try:
        fps = float(value)
    except ValueError:
        fps = math.nan
    if not 0 < fps <= 1000:
        raise ConfigError(f"{scheme}: fps={value} is no rate; write fps=30")
    return fps
