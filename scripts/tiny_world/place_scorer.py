"""Background and time of day: coarse colours against rendered prototypes of every pair."""

from __future__ import annotations

import functools
from dataclasses import replace

import cv2
import numpy as np

from tiny_world.background import background as draw_background
from tiny_world.scene import Scene, World
from tiny_world.styles import apply_style

CELLS = 16  # the picture is compared as CELLS x CELLS mean colours
# Mean Lab distance above which a clip shows no place: softened truth is under 9, noise over 20,
# most photographs over 25.
MAX_DISTANCE = 20.0
FOG_DISTANCE = 12.0  # allowed on top in a world that has fog
HORIZON_SHIFTS = (-0.025, 0.0, 0.025)
SIZE_PX = 128
MIDDLE = 0.25  # radius within which a still object may be, share of the side
PAN_STEPS = 8  # of a panorama, tried in a world with pans

_ANY_SCENE = Scene(
    shape="ball", colour="red", size="big", motion="hovering", background="field",
    time_of_day="day",
    weather="clear", pan="none", style="none", diameter=0.36, centre_x=0.5, centre_y=0.5,
    amplitude=0.0, phase=0.0, horizon_shift=0.0, detail_phase=0.5, layout=0, seed=0,
)  # fmt: skip


def classify_place(
    clip: np.ndarray, masks: np.ndarray | None, style: str, world: World
) -> tuple[str | None, str | None]:
    """Background and time of a clip [T, 128, 128, 3] outside the masks [T, 128, 128].

    Without masks a moving object vanishes in the median, and the middle counts little.
    """
    colours, weights = _median_cells(clip) if masks is None else _cells(clip, masks)
    names, prototypes = _prototypes(world, style)
    away = np.sqrt(((prototypes - colours[None]) ** 2).sum(-1))  # [P, CELLS, CELLS]
    distances = (np.minimum(away, 60) * weights).sum((1, 2)) / weights.sum()
    best = int(np.argmin(distances))
    if distances[best] > MAX_DISTANCE + FOG_DISTANCE * ("fog" in world.weathers):
        return None, None
    return names[best]


def _cells(clip: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean Lab colours [CELLS, CELLS, 3] without the object, and how much of each cell was seen."""
    steps = slice(None, None, max(1, len(clip) // 8))
    total = np.zeros((CELLS, CELLS, 3), np.float32)
    weights = np.zeros((CELLS, CELLS), np.float32)
    for frame, mask in zip(clip[steps], masks[steps], strict=True):
        around = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8))
        seen = (1 - around).astype(np.float32)
        total += _shrink(frame.astype(np.float32) * seen[..., None])
        weights += _shrink(seen)
    colours = total / np.maximum(weights, 1e-3)[..., None]
    return _lab(colours), weights + 1e-6


def _median_cells(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lab colours [CELLS, CELLS, 3] of the median over time; weights that are low in the middle."""
    still = np.median(clip[:: max(1, len(clip) // 8)], axis=0).astype(np.float32)
    axis = (np.arange(CELLS) + 0.5) / CELLS - 0.5
    is_middle = axis[:, None] ** 2 + axis[None] ** 2 < MIDDLE**2
    return _lab(_shrink(still)), np.where(is_middle, 0.15, 1.0).astype(np.float32)


def _shrink(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (CELLS, CELLS), interpolation=cv2.INTER_AREA)


def _lab(colours: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((colours / 255).astype(np.float32), cv2.COLOR_RGB2LAB)


@functools.lru_cache(maxsize=32)
def _prototypes(world: World, style: str) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Names and Lab cells [P, CELLS, CELLS, 3] of every background at every time."""
    names, cells = [], []
    has_pans = len(world.pans) > 1
    for place in world.backgrounds:
        for time in world.times:
            for layout in range(world.layouts):
                for shift in HORIZON_SHIFTS:
                    scene = replace(_ANY_SCENE, background=place, time_of_day=time, layout=layout,
                                    horizon_shift=shift)  # fmt: skip
                    for picture in _views(scene, style, has_pans=has_pans):
                        names.append((place, time))
                        cells.append(_lab(_shrink(picture.astype(np.float32))))
    return names, np.stack(cells)


def _views(scene: Scene, style: str, *, has_pans: bool) -> np.ndarray:
    """What a camera sees of a background: uint8 [1 or PAN_STEPS, 128, 128, 3]."""
    if not has_pans:
        return apply_style(draw_background(scene, SIZE_PX)[None], style)
    panorama = draw_background(scene, SIZE_PX, width=2)
    steps = range(0, panorama.shape[1], panorama.shape[1] // PAN_STEPS)
    views = [np.roll(panorama, -step, axis=1)[:, :SIZE_PX] for step in steps]
    return apply_style(np.ascontiguousarray(views), style)
