"""The object's picture: a shaded, outlined sprite with alpha, drawn once, warped into every frame.

Lengths are shares of the object's diameter, y downwards, (0, 0) is its centre.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

# Hues are 19 degrees apart or more (22 in the small world); chroma (max - min) is over 160 of 255,
# that of the pastel backgrounds under 125.
OBJECT_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (226, 22, 38),
    "orange": (255, 124, 0),
    "yellow": (255, 230, 20),
    "green": (24, 186, 52),
    "cyan": (20, 214, 226),
    "blue": (24, 84, 242),
    "purple": (158, 34, 216),
    "pink": (255, 70, 168),
}
OUTLINE = (30, 22, 34)  # RGB
OUTLINE_WIDTH = 0.055
MARGIN = 1.15  # the sprite's side in diameters
SUPERSAMPLE = 8


def outline(shape: str) -> np.ndarray:
    """The closed outline float32 [N, 2] of a shape within a circle of diameter about 1."""
    if shape == "box":
        return _rounded(np.array([(-0.4, -0.4), (0.4, -0.4), (0.4, 0.4), (-0.4, 0.4)]), 0.05)
    if shape == "triangle":
        return _rounded(np.array([(0, -0.47), (0.5, 0.4), (-0.5, 0.4)]), 0.04)
    if shape == "star":
        return _star(5, 0.53, 0.235)
    if shape == "diamond":
        return _rounded(np.array([(0, -0.52), (0.36, 0), (0, 0.52), (-0.36, 0)]), 0.03)
    if shape == "cross":
        a, b = 0.17, 0.48
        half = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        return np.array(half + [(-x, -y) for x, y in half], np.float32)
    angles = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    if shape == "heart":
        x = 16 * np.sin(angles) ** 3
        y = -(
            13 * np.cos(angles)
            - 5 * np.cos(2 * angles)
            - 2 * np.cos(3 * angles)
            - np.cos(4 * angles)
        )
        return np.stack([x, y - 2], 1).astype(np.float32) / 33
    if shape == "flower":
        radii = 0.40 + 0.11 * np.cos(6 * angles)
        return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], 1).astype(np.float32)
    if shape == "moon":
        outer = np.linspace(0.75, 2 * math.pi - 0.75, 64)
        inner = np.linspace(2 * math.pi - 1.12, 1.12, 64)
        arc = np.stack([0.48 * np.cos(outer), 0.48 * np.sin(outer)], 1)
        bite = np.stack([0.12 + 0.365 * np.cos(inner) + 0.07, 0.365 * np.sin(inner)], 1)
        return (np.concatenate([arc, bite]) + np.array((0.06, 0))).astype(np.float32)
    radius = 0.5 - OUTLINE_WIDTH / 2  # ball, ring
    return np.stack([radius * np.sin(angles), -radius * np.cos(angles)], 1).astype(np.float32)


def sprite(shape: str, colour: str, diameter_px: float) -> np.ndarray:
    """Premultiplied RGBA float32 [S, S, 4], 0..255 (alpha 0..1), at twice the size on the picture.

    S = ceil(2 * MARGIN * diameter_px); warp it with a scale of 0.5.
    """
    side = math.ceil(2 * MARGIN * diameter_px)
    big = side * SUPERSAMPLE // 2
    scale = 2 * diameter_px * SUPERSAMPLE / 2
    points = np.round((outline(shape) * scale + big / 2) * 16).astype(np.int32)
    fill = np.zeros((big, big), np.uint8)
    edge = np.zeros((big, big), np.uint8)
    width = max(1, round(OUTLINE_WIDTH * scale))
    cv2.fillPoly(fill, [points], 255, cv2.LINE_AA, 4)
    cv2.polylines(edge, [points], True, 255, width, cv2.LINE_AA, 4)
    if shape == "ring":
        centre, radius = (round(big * 8), round(big * 8)), round(0.22 * scale * 16)
        cv2.circle(fill, centre, radius, 0, -1, cv2.LINE_AA, 4)
        cv2.circle(edge, centre, radius, 255, width, cv2.LINE_AA, 4)
    fill_HW = _shrink(fill, side)
    edge_HW = _shrink(edge, side)
    rgb = _shade(shape, colour, side, 2 * diameter_px)
    alpha = np.maximum(fill_HW, edge_HW)[..., None]
    rgb = rgb * (1 - edge_HW[..., None]) + np.asarray(OUTLINE, np.float32) * edge_HW[..., None]
    return np.concatenate([rgb * alpha, alpha], 2).astype(np.float32)


def _shrink(mask: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _shade(shape: str, colour: str, side: int, scale: float) -> np.ndarray:
    """Light from the upper left: float32 [S, S, 3]."""
    axis = (np.arange(side, dtype=np.float32) + 0.5 - side / 2) / scale
    x, y = axis[None, :], axis[:, None]
    base = np.asarray(OBJECT_COLOURS[colour], np.float32)
    if shape == "ball":
        height = np.sqrt(np.clip(0.27 - x * x - y * y, 0.0, None)) / 0.52
        light = np.clip(0.60 + 0.55 * (-0.55 * x * 1.9 - 0.62 * y * 1.9 + 0.55 * height), 0.5, 1.12)
        shine = np.exp(-((x + 0.16) ** 2 + (y + 0.19) ** 2) / 0.009)
    else:
        light = np.clip(0.94 - 0.22 * x - 0.42 * y, 0.66, 1.15)
        shine = 0.0 * x * y
        if shape == "box":  # a darker front edge, like a crate seen a little from above
            light = np.where(y > 0.22, light * 0.86, light)
    shaded = np.minimum(base * light[..., None], 255)
    return shaded + (255 - shaded) * (0.8 * shine)[..., None]


def _rounded(corners: np.ndarray, radius: float) -> np.ndarray:
    """Cut every corner of a polygon into a short quadratic curve: float32 [N, 2]."""
    points = []
    for before, corner, after in zip(
        np.roll(corners, 1, 0), corners, np.roll(corners, -1, 0), strict=True
    ):
        first = corner + (before - corner) * radius * 2 / np.linalg.norm(before - corner)
        last = corner + (after - corner) * radius * 2 / np.linalg.norm(after - corner)
        for t in np.linspace(0, 1, 6):
            points.append((1 - t) ** 2 * first + 2 * t * (1 - t) * corner + t * t * last)
    return np.array(points, np.float32)


def _star(num_points: int, outer: float, inner: float) -> np.ndarray:
    angles = np.arange(2 * num_points) * math.pi / num_points
    radii = np.where(np.arange(2 * num_points) % 2 == 0, outer, inner)
    return np.stack([radii * np.sin(angles), 0.02 - radii * np.cos(angles)], 1).astype(np.float32)
