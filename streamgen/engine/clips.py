"""Clips that are made of pictures that are there already. Host values only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamgen.types import Clip

if TYPE_CHECKING:
    from streamgen.engine.collaborators import HeldClip, PendingClip


class RepeatedPictures:
    """A clip at a lower rate: each of its pictures is shown `repeat` times."""

    def __init__(self, clip: PendingClip, repeat: int) -> None:
        self._clip = clip
        self._repeat = repeat

    def wait(self) -> Clip:
        clip = self._clip.wait()
        pixels = np.repeat(clip.pixels, self._repeat, axis=0)
        return Clip(pixels, clip.pts_s, clip.captured_s)


class LastPicture:
    """A still clip: the last picture of the clip before, for as long as the still one lasts."""

    def __init__(self, before: PendingClip, held: HeldClip) -> None:
        self._before = before
        self._held = held

    def wait(self) -> Clip:
        last = self._before.wait().pixels[-1:]
        pixels = np.repeat(last, self._held.num_frames, axis=0)
        return Clip(pixels, self._held.pts_s, self._held.captured_s)
