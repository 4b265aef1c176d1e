"""Clips on their way to a viewer: decoded ones, and those made of pictures that are there already.

Host values only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamgen.types import Clip

if TYPE_CHECKING:
    from streamgen.engine.collaborators import HeldClip, PendingClip


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A clip that is shown as soon as it has arrived, and not before."""

    clip: PendingClip
    captured_s: float
    pts_s: float
    due_s: float
    num_decoded: int
    """Pictures that were decoded for it; 0 for one that repeats others."""
    num_shown: int
    """Pictures that it has."""
    began_s: float


class RepeatedPictures:
    """A clip at a lower rate: each of its pictures is shown `repeat` times."""

    def __init__(self, clip: PendingClip, repeat: int) -> None:
        self._clip = clip
        self._repeat = repeat

    def has_arrived(self) -> bool:
        return self._clip.has_arrived()

    def device_s(self) -> float | None:
        return self._clip.device_s()

    def wait(self) -> Clip:
        clip = self._clip.wait()
        pixels = np.repeat(clip.pixels, self._repeat, axis=0)
        return Clip(pixels, clip.pts_s, clip.captured_s)


class LastPicture:
    """A still clip: the last picture of the clip before, for as long as the still one lasts."""

    def __init__(self, before: PendingClip, held: HeldClip) -> None:
        self._before = before
        self._held = held

    def has_arrived(self) -> bool:
        return self._before.has_arrived()

    def device_s(self) -> float | None:
        return None

    def wait(self) -> Clip:
        last = self._before.wait().pixels[-1:]
        pixels = np.repeat(last, self._held.num_frames, axis=0)
        return Clip(pixels, self._held.pts_s, self._held.captured_s)
