"""The whole-picture style: four styles have palettes of their own, one has flat strong colours."""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np

SIDE_PX = 64  # clips are compared at this size
MAX_DISTANCE = 13.0  # mean RGB distance from a style's palette within which it may be that style
MIN_COMIC = 0.32  # flatness above which a clip is comic: none .00-.20, comic .44-.83 (small world)
MIN_GLOW = 0.15  # share of strong colours: neon .48-.96 in the small world, none .03-.15
MIN_PAPER = 168.0  # median grey of a sketch
COMIC_VALUES = (62, 124, 196, 255)  # the steps of `styles._comic`
COMIC_SATURATIONS = (0, 120, 190, 245)


def classify_style(clip: np.ndarray) -> str:
    """The name of the style of a clip uint8 [T, H, W, 3]; "none" for an ordinary picture."""
    pixels = _sample(clip)
    distances = {style: _distance(pixels, palette) for style, palette in _palettes().items()}
    if np.median(pixels) < MIN_PAPER:
        del distances["sketch"]
    if _mean(_glow, clip) < MIN_GLOW:
        del distances["neon"]
    style = min(distances, key=distances.__getitem__)
    if distances[style] < MAX_DISTANCE:
        return style
    return "comic" if _mean(_flatness, clip) > MIN_COMIC else "none"


def _mean(measure: Callable[[np.ndarray], float], clip: np.ndarray) -> float:
    """The mean of a measure over up to four frames."""
    return float(np.mean([measure(frame) for frame in clip[:: max(1, len(clip) // 4)]]))


def _hsv(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.GaussianBlur(frame, (0, 0), 1.0), cv2.COLOR_RGB2HSV).astype(np.int16)


def _glow(frame: np.ndarray) -> float:
    """Share of pixels of a strong colour."""
    return float((_hsv(frame)[..., 1] > 165).mean())


def _flatness(frame: np.ndarray) -> float:
    """Share of pixels close to the few values and saturations of a comic."""
    hsv = _hsv(frame)
    is_near_value = _away(hsv[..., 2], COMIC_VALUES) < 12
    is_near_saturation = _away(hsv[..., 1], COMIC_SATURATIONS) < 14
    return float((is_near_value & is_near_saturation).mean())


def _away(channel: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    return np.min([np.abs(channel - level) for level in levels], axis=0)


def _sample(clip: np.ndarray) -> np.ndarray:
    """Pixels float32 [N, 3] of up to four frames."""
    frames = clip[:: max(1, len(clip) // 4)][:4]
    small = [cv2.resize(f, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for f in frames]
    return np.stack(small).reshape(-1, 3).astype(np.float32)[::3]


def _distance(pixels: np.ndarray, palette: np.ndarray) -> float:
    square = (pixels**2).sum(1)[:, None] + (palette**2).sum(1)[None] - 2 * pixels @ palette.T
    return float(np.sqrt(np.maximum(square.min(1), 0)).mean())


@functools.cache
def _palettes() -> dict[str, np.ndarray]:
    """Colours [P, 3] that a style uses, from the definitions in `styles`."""
    level = np.linspace(0, 1, 40)[:, None]
    sketch = (28 + 224 * level) * [1.0, 0.99, 0.96]
    sepia = _curve(((0, 38, 24, 12), (128, 148, 112, 72), (255, 252, 232, 190)))
    ice = _curve(((0, 6, 40, 96), (110, 52, 146, 214), (190, 140, 216, 246), (255, 238, 252, 255)))
    frosted = [ice + (np.array([242, 252, 255]) - ice) * share for share in (0, 0.25, 0.5, 0.8)]
    neon = []
    for light in np.linspace(0, 1, 5):
        lamp = np.array([255, 40, 200]) * (1 - light) + np.array([30, 235, 255]) * light
        for dim in ([8, 4, 22], [24, 13, 48], [40, 22, 74]):
            neon.append(np.minimum(dim + lamp * np.linspace(0, 1.4, 16)[:, None], 255))
    return {
        "sketch": sketch.astype(np.float32),
        "sepia": np.concatenate([sepia * share for share in (1, 0.9, 0.8, 0.65)]).astype(
            np.float32
        ),
        "ice": np.concatenate(frosted).astype(np.float32),
        "neon": np.concatenate(neon).astype(np.float32),
    }


def _curve(stops: tuple[tuple[int, int, int, int], ...]) -> np.ndarray:
    knots = np.array(stops, np.float64)
    levels = np.linspace(0, 255, 40)
    return np.stack([np.interp(levels, knots[:, 0], knots[:, c]) for c in (1, 2, 3)], 1)
