"""Where the object is in every frame: the largest vivid region; backgrounds are pale or dark."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tiny_world.shape_scorer import normalised_mask

CLEAR_LIMITS = (0.60, 84, 72)  # least saturation, value and chroma (max - min of RGB) of the object
FOG_LIMITS = (0.36, 60, 54)  # the same, tried next in a world that has fog
MIN_AREA_PX = 160  # a smaller region is not an object
MAX_SHARE = 0.4  # of the picture; a larger region is a background
MIN_HOLE = 0.09  # of the region; a smaller hole is a highlight


@dataclass(frozen=True, slots=True)
class Track:
    """The object through a clip; a row for each frame in which it was found."""

    frames: np.ndarray  # int [K], indices of the frames
    centres: np.ndarray  # float [K, 2], x and y in px at SIZE_PX
    areas: np.ndarray  # float [K], px
    masks: np.ndarray  # float32 [K, S, S], centred and scaled to one area
    hues: np.ndarray  # float [K, 2], mean unit vectors of hue


def find_object(clip: np.ndarray, *, has_fog: bool = False) -> tuple[Track, np.ndarray]:
    """The largest vivid region of every frame: its track, and masks bool [T, H, W]."""
    masks = np.zeros(clip.shape[:3], bool)
    rows: list[tuple[int, np.ndarray, float, np.ndarray, np.ndarray]] = []
    for index, frame in enumerate(clip):
        mask = object_mask(frame, CLEAR_LIMITS)
        if mask is None and has_fog:
            mask = object_mask(frame, FOG_LIMITS)
        if mask is None:
            continue
        masks[index] = mask > 0
        y, x = np.nonzero(mask)
        rows.append((index, np.array([x.mean(), y.mean()]), float(len(x)), normalised_mask(mask),
                     _mean_hue(frame, mask)))  # fmt: skip
    columns = (
        [np.array(column) for column in zip(*rows, strict=True)] if rows else [np.empty(0)] * 5
    )
    return Track(*columns), masks


def object_mask(frame: np.ndarray, limits: tuple[float, int, int]) -> np.ndarray | None:
    """The largest vivid region uint8 [H, W] of 0 and 1, small holes filled, or None."""
    min_saturation, min_value, min_chroma = limits
    soft = cv2.GaussianBlur(frame, (0, 0), 0.8).astype(np.int16)
    value = soft.max(2)
    chroma = value - soft.min(2)
    vivid = (chroma > min_saturation * value) & (value > min_value) & (chroma > min_chroma)
    contours, tree = cv2.findContours(vivid.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(c) * (t[3] < 0) for c, t in zip(contours, _rows(tree), strict=True)]
    area = max(areas, default=0.0)
    if not MIN_AREA_PX <= area <= MAX_SHARE * vivid.size:
        return None
    largest = areas.index(area)
    mask = np.zeros(frame.shape[:2], np.uint8)
    cv2.drawContours(mask, contours, largest, 1, cv2.FILLED)
    for hole, links in zip(contours, _rows(tree), strict=True):
        if links[3] == largest and cv2.contourArea(hole) > MIN_HOLE * area:
            cv2.drawContours(mask, [hole], -1, 0, cv2.FILLED)
    return mask


def _rows(tree: np.ndarray | None) -> np.ndarray:
    """OpenCV's links of contours as [K, 4]: next, previous, first hole, parent."""
    return np.empty((0, 4), np.int32) if tree is None else tree.reshape(-1, 4)


def _mean_hue(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=2)
    pixels = frame[(inner if inner.any() else mask) > 0].astype(np.float32)
    chroma = pixels.max(1) - pixels.min(1)
    bright = pixels[chroma >= np.median(chroma)]
    hue = cv2.cvtColor(bright[None] / 255, cv2.COLOR_RGB2HSV)[0, :, 0] * np.pi / 180
    return np.array([np.cos(hue).mean(), np.sin(hue).mean()])
