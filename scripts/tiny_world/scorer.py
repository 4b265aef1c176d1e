"""Computer vision on clips: what do they show?  Deterministic, knows the world but not the prompt.

Measured in order: style (palettes), the object (vivid region), its colour (hue), shape (templates),
motion (track), then background and time (coarse colours against rendered prototypes).
`python -m tiny_world.scorer` prints how often the scorer is right when the truth is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tiny_world.motion_scorer import classify_motion
from tiny_world.objects import OBJECT_COLOURS
from tiny_world.place_scorer import classify_place
from tiny_world.scene import SMALL, World
from tiny_world.shape_scorer import classify_shape
from tiny_world.style_scorer import classify_style
from tiny_world.track import Track, find_object

SIZE_PX = 128  # clips of another size are scaled to this
MIN_FOUND = 0.5  # share of frames in which the object must be found


@dataclass(frozen=True, slots=True)
class Observation:
    """Names as in `Scene`; None where the clip does not say (no object, too short, styled)."""

    colour: str | None
    shape: str | None
    motion: str | None
    background: str | None
    time_of_day: str | None
    style: str | None


def score_clip(clip: np.ndarray, world: World = SMALL) -> Observation:
    """What a clip uint8 [T, H, W, 3] shows, in the names of a world.

    Colour, shape and motion are measured in unstyled and comic clips only; motion needs 24 frames
    or more.
    """
    clip = _resized(clip)
    style = classify_style(clip)
    colour = shape = motion = None
    is_masked = style in ("none", "comic")
    masks = np.zeros(clip.shape[:3], bool)
    if is_masked:
        track, masks = find_object(clip, has_fog="fog" in world.weathers)
        if len(track.frames) >= max(1, MIN_FOUND * len(clip)):
            colour = _classify_colour(track, world)
            shape = classify_shape(track.masks, world)
            motion = classify_motion(track, len(clip), world)
    background, time_of_day = classify_place(clip, masks if is_masked else None, style, world)
    return Observation(colour, shape, motion, background, time_of_day, style)


def _classify_colour(track: Track, world: World) -> str:
    """The world's colour with the nearest hue."""
    x, y = np.median(track.hues, axis=0)
    hue = np.arctan2(y, x)
    colours = np.asarray([[OBJECT_COLOURS[name] for name in world.colours]], np.float32) / 255
    hues = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV)[0, :, 0] * np.pi / 180
    return world.colours[int(np.argmax(np.cos(hues - hue)))]


def _resized(clip: np.ndarray) -> np.ndarray:
    if clip.shape[1:3] == (SIZE_PX, SIZE_PX):
        return clip
    return np.stack([cv2.resize(f, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA) for f in clip])


if __name__ == "__main__":
    from tiny_world.validation import main

    main()
