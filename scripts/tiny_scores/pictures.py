"""Measures on pictures: edges in common, sharpness, colour, closeness. uint8 RGB [T, H, W, 3]."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streamgen.types import Pixels

EDGE_SHARE = 0.10  # of the pixels: the strongest gradients are the edges of a picture
EDGE_BLUR_PX = 1.0  # before gradients are taken, so that noise is no edge
EDGE_REACH_PX = 1  # how far off an edge may lie and still be the same one
MAX_PSNR_DB = 99.0  # for equal pictures


def edge_agreement(one: Pixels, other: Pixels) -> float:
    """F1 of the edges of two clips, mean over frames; 1 for equal clips, 0.2 to 0.4 by chance.

    Edges of a frame are the tenth of its pixels with the largest Sobel gradient of the blurred
    grey, so that a style's contrast plays no part. Precision is the share of the second clip's
    edge pixels that lie on an edge of the first or beside one (3x3), recall the same the other
    way round. A frame without any gradient has no edges and agrees only with its like.
    Raises ValueError if the clips differ in form.
    """
    _check_forms(one, other)
    scores = [_f1(_edges(left), _edges(right)) for left, right in zip(one, other, strict=True)]
    return float(np.mean(scores))


def _edges(frame: Pixels) -> np.ndarray:
    """bool [H, W]."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    soft = cv2.GaussianBlur(grey, (0, 0), EDGE_BLUR_PX)
    across = cv2.Sobel(soft, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    strength = cv2.magnitude(across, down)
    return (strength >= np.quantile(strength, 1 - EDGE_SHARE)) & (strength > 0)


def _f1(one: np.ndarray, other: np.ndarray) -> float:
    if not one.any() or not other.any():
        return float(one.any() == other.any())
    precision = (other & _widened(one)).sum() / other.sum()
    recall = (one & _widened(other)).sum() / one.sum()
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def _widened(edges: np.ndarray) -> np.ndarray:
    side = 2 * EDGE_REACH_PX + 1
    return cv2.dilate(edges.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)


def psnr_db(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio of two clips of one form, over all frames at once."""
    _check_forms(one, other)
    error = float(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2))
    return MAX_PSNR_DB if error == 0 else min(MAX_PSNR_DB, 10 * float(np.log10(255**2 / error)))


def rms_difference(one: Pixels, other: Pixels) -> float:
    """Root of the mean square difference, in grey levels 0 to 255."""
    _check_forms(one, other)
    return float(np.sqrt(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2)))


@dataclass(frozen=True, slots=True)
class Look:
    """What one frame looks like in numbers that should not drift."""

    sharpness: float  # variance of the Laplacian of the grey, 0..255 squared
    red: float  # mean, 0..255
    green: float
    blue: float
    contrast: float  # standard deviation of all values, 0..255
    saturation: float  # mean of HSV's, 0..1
    change: float  # RMS difference to the frame before, 0..255; 0 for the first


def look_of(frame: Pixels, before: Pixels | None) -> Look:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    red, green, blue = (float(value) for value in frame.reshape(-1, 3).mean(axis=0))
    return Look(
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        red=red,
        green=green,
        blue=blue,
        contrast=float(frame.std()),
        saturation=float(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1].mean()) / 255,
        change=0.0 if before is None else rms_difference(frame, before),
    )


def _check_forms(one: Pixels, other: Pixels) -> None:
    if one.shape != other.shape:
        raise ValueError(f"clips differ in form: {list(one.shape)} and {list(other.shape)}")
