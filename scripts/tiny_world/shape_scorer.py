"""The shape from the object's mask: the template that overlaps best, after scaling to one area."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from tiny_world.objects import sprite
from tiny_world.scene import World

SIDE_PX = 48  # of a normalised mask
DIAMETER_PX = 30.0  # of a disc with the normalised area
TEMPLATE_DIAMETER_PX = 46  # as the objects of the small world at 128 px
BLUR_PX = (0.0, 1.5, 3.0)  # one template each: generated pictures are soft
TURN_STEPS = 12  # rotations tried for a world in which objects spin


def normalised_mask(mask: np.ndarray) -> np.ndarray:
    """A mask of 0 and 1 [H, W], centred and scaled to one area: float32 [SIDE_PX, SIDE_PX]."""
    y, x = np.nonzero(mask)
    scale = DIAMETER_PX / (2 * np.sqrt(len(x) / np.pi))
    middle = (SIDE_PX - 1) / 2
    matrix = np.array(
        [[scale, 0, middle - scale * x.mean()], [0, scale, middle - scale * y.mean()]]
    )
    return cv2.warpAffine(
        mask.astype(np.float32), matrix, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR
    )


def classify_shape(masks: np.ndarray, world: World) -> str:
    """The world's shape that fits most of the normalised masks [K, S, S]."""
    turns = TURN_STEPS if "spinning" in world.motions else 1
    steps = masks[:: max(1, len(masks) // 8)] if turns > 1 else np.median(masks, axis=0)[None]
    totals = np.zeros(len(world.shapes))
    for mask in steps:
        for index, shape in enumerate(world.shapes):
            templates = _templates(shape, turns)
            both = np.minimum(templates, mask).sum((1, 2))
            either = np.maximum(templates, mask).sum((1, 2))
            # upright, unless turned fits clearly better
            penalty = np.arange(len(templates)) // len(BLUR_PX) > 0
            totals[index] += (both / either - 0.03 * penalty).max()
    return world.shapes[int(np.argmax(totals))]


@functools.lru_cache(maxsize=32)
def _templates(shape: str, turns: int) -> np.ndarray:
    """Normalised masks [turns * len(BLUR_PX), S, S], the upright ones first."""
    picture = sprite(shape, "red", TEMPLATE_DIAMETER_PX)
    inside = picture[..., 3] * (picture[..., 0] > 100)
    side = 2 * picture.shape[0]
    templates = []
    for turn in range(turns):
        middle = (inside.shape[0] - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), 360 * turn / turns, 0.5)
        matrix[:, 2] += side / 4 - middle
        upright = cv2.warpAffine(inside, matrix, (side // 2, side // 2))
        for blur in BLUR_PX:
            soft = cv2.GaussianBlur(upright, (0, 0), blur) if blur else upright
            templates.append(normalised_mask(soft > 0.5))
    return np.stack(templates)
