"""Whole-picture styles: functions of one frame, so that a clip stays as steady as its input."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

STYLES = ("none", "sketch", "neon", "sepia", "comic", "ice")

_PHRASES: dict[str, tuple[str, ...]] = {  # the first is canonical
    "none": ("a plain picture", "natural colours", "unchanged", "an ordinary picture", "realistic"),
    "sketch": ("a pencil sketch", "a pencil drawing", "a sketch on paper", "make it a sketch",
               "drawn in pencil", "a charcoal sketch", "a line drawing"),
    "neon": ("neon lights", "neon city lights", "glowing neon", "make it neon", "a neon glow",
             "cyberpunk neon", "glowing neon lights"),
    "sepia": ("an old sepia film", "a sepia photo", "a vintage photo", "make it an old film",
              "sepia tones", "an antique sepia picture", "a faded old photo"),
    "comic": ("a comic book", "make it a comic book", "a cartoon", "a comic page",
              "turn it into a cartoon", "pop-art comic", "a comic picture"),
    "ice": ("frozen ice", "an icy world", "make it frozen", "everything frozen in ice",
            "a frosty picture", "icy blue tones", "turn it into ice"),
}  # fmt: skip
_CLAUSES: dict[str, tuple[str, ...]] = {  # behind a description of a scene; the first is canonical
    "none": ("in natural colours",),
    "sketch": ("as a pencil sketch", "as a pencil drawing", "in sketch style", "drawn in pencil"),
    "neon": ("in neon style", "in neon lights", "as glowing neon", "with a neon glow"),
    "sepia": ("as an old sepia film", "in sepia", "as a vintage photo", "in sepia tones"),
    "comic": ("as a comic book", "in comic style", "as a cartoon", "on a comic page"),
    "ice": ("in ice style", "frozen in ice", "as frosty ice", "in icy tones"),
}


def style_caption(style: str, rng: np.random.Generator) -> str:
    """A prompt for video to video that asks for the style alone."""
    phrases = _PHRASES[style]
    return phrases[0] if rng.random() < 0.25 else phrases[int(rng.integers(len(phrases)))]


def style_phrase(style: str, rng: np.random.Generator | None = None) -> str:
    """A clause that follows the description of a scene; the canonical one without rng."""
    clauses = _CLAUSES[style]
    return clauses[0] if rng is None else clauses[int(rng.integers(len(clauses)))]


def apply_style(clip: np.ndarray, style: str) -> np.ndarray:
    """The clip uint8 [T, H, W, 3] in a style, as a new array of the same form.

    Raises KeyError for a name that is not in `STYLES`.
    """
    if style == "none":
        return clip.copy()
    draw = _PAINTERS[style]
    styled = np.empty_like(clip)
    for index, frame in enumerate(clip):
        styled[index] = draw(frame)
    return styled


def _edges(grey: np.ndarray) -> np.ndarray:
    """Strength of edges float32 [H, W], about 0..255, relative to the light around them."""
    blur = grey.shape[0] / 128
    soft = cv2.GaussianBlur(grey, (0, 0), 0.8 * blur)
    across = cv2.Sobel(soft, cv2.CV_32F, 1, 0) * blur
    down = cv2.Sobel(soft, cv2.CV_32F, 0, 1) * blur
    around = cv2.blur(grey, (15, 15)).astype(np.float32)
    return cv2.magnitude(across, down) * (115.0 / (around + 40.0))


def _grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _ramp(grey: np.ndarray, stops: tuple[tuple[int, int, int, int], ...]) -> np.ndarray:
    """Map grey through (grey, R, G, B) stops, linear between: uint8 [H, W, 3]."""
    knots = np.array(stops, np.float32)
    levels = np.arange(256)
    table = np.stack([np.interp(levels, knots[:, 0], knots[:, c]) for c in (1, 2, 3)], 1)
    return table.astype(np.uint8)[grey]


def _sketch(frame: np.ndarray) -> np.ndarray:
    """Dark strokes along edges, a little shading, white paper (the "colour dodge" sketch)."""
    grey = _grey(frame)
    around = cv2.GaussianBlur(grey, (0, 0), 3.0 * grey.shape[0] / 128).astype(np.float32)
    dodge = np.minimum((grey + 24.0) / (around + 24.0), 1.0)
    tone = 216.0 + 0.15 * grey
    ink = np.clip(tone * dodge * dodge - 0.85 * np.maximum(_edges(grey) - 14, 0), 28, 252)
    return _tinted(ink, (1.0, 0.99, 0.96))


def _tinted(grey: np.ndarray, factors: tuple[float, float, float]) -> np.ndarray:
    return np.clip(grey[..., None] * np.asarray(factors, np.float32), 0, 255).astype(np.uint8)


_LAMP_DARK = np.array((255, 40, 200), np.float32)
_LAMP_BRIGHT = np.array((30, 235, 255), np.float32)


def _neon(frame: np.ndarray) -> np.ndarray:
    """A dark violet picture; edges glow magenta in dark places and cyan in bright ones."""
    grey = _grey(frame)
    line = np.clip(_edges(grey) * 1.5 - 24, 0, 255)
    light = np.clip((cv2.GaussianBlur(grey, (0, 0), 5.0).astype(np.float32) - 70) / 90, 0, 1)[
        ..., None
    ]
    lamp = _LAMP_DARK * (1 - light) + _LAMP_BRIGHT * light
    glow = cv2.GaussianBlur(line, (0, 0), 2.6 * grey.shape[0] / 128)
    dim = _ramp(grey, ((0, 8, 4, 22), (255, 40, 22, 74)))
    shine = (line * 0.75 + glow * 0.9) / 255
    return np.minimum(dim + lamp * shine[..., None], 255).astype(np.uint8)


def _sepia(frame: np.ndarray) -> np.ndarray:
    """Brown tones and dark corners, like an old film."""
    grey = _grey(frame)
    tone = _ramp(grey, ((0, 38, 24, 12), (128, 148, 112, 72), (255, 252, 232, 190)))
    axis = np.linspace(-1, 1, grey.shape[0], dtype=np.float32), np.linspace(-1, 1, grey.shape[1])
    corner = 1 - 0.22 * (axis[0][:, None] ** 2 + axis[1][None].astype(np.float32) ** 2)
    return (tone * corner[..., None]).astype(np.uint8)


def _comic(frame: np.ndarray) -> np.ndarray:
    """Flat strong colours in few steps and bold black outlines."""
    soft = cv2.bilateralFilter(frame, 5, 40, 3)
    hsv = cv2.cvtColor(soft, cv2.COLOR_RGB2HSV)
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    hue = (hue + 5) // 10 * 10 % 180
    saturation = cv2.LUT(saturation, _STEPS_SATURATION)
    value = cv2.LUT(value, _STEPS_VALUE)
    flat = cv2.cvtColor(np.stack([hue, saturation, value], 2), cv2.COLOR_HSV2RGB)
    flat = cv2.GaussianBlur(flat, (0, 0), 0.6)
    ink = np.clip(1.25 - _edges(_grey(soft)) / 95, 0, 1)[..., None]
    return (flat * ink).astype(np.uint8)


_LEVELS = np.arange(256)
_STEPS_VALUE = np.select([_LEVELS < 48, _LEVELS < 104, _LEVELS < 168], [62, 124, 196], 255).astype(
    np.uint8
)
_STEPS_SATURATION = np.select(
    [_LEVELS < 22, _LEVELS < 60, _LEVELS < 110], [0, 120, 190], 245
).astype(np.uint8)


def _ice(frame: np.ndarray) -> np.ndarray:
    """Frozen blue tones, white frost on every edge."""
    grey = _grey(frame)
    tone = _ramp(
        grey, ((0, 6, 40, 96), (110, 52, 146, 214), (190, 140, 216, 246), (255, 238, 252, 255))
    )
    frost = np.clip((_edges(grey) - 20) / 120, 0, 0.85)[..., None]
    return (tone + (np.asarray((242, 252, 255), np.float32) - tone) * frost).astype(np.uint8)


_PAINTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sketch": _sketch,
    "neon": _neon,
    "sepia": _sepia,
    "comic": _comic,
    "ice": _ice,
}
