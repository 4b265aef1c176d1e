"""The still background of a scene: sky by time of day, then the place; pale behind vivid objects.

A panorama is `width` sides wide and repeats after two sides, so a camera can pan for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from tiny_world.scene import Scene

Colour = tuple[float, float, float]  # RGB, 0..255

SKIES: dict[str, tuple[Colour, Colour]] = {  # top, bottom
    "day": ((140, 190, 226), (222, 236, 242)),
    "night": ((14, 17, 42), (46, 54, 92)),
    "sunset": ((150, 126, 172), (252, 196, 160)),
}
TINTS: dict[str, tuple[Colour, Colour]] = {  # a colour by day, times the first, plus the second
    "day": ((1, 1, 1), (0, 0, 0)),
    "night": ((0.36, 0.35, 0.38), (0, 2, 14)),
    "sunset": ((0.82, 0.70, 0.74), (26, 4, 10)),
}
HORIZONS = {  # share of the side at which the ground begins
    "field": 0.62,
    "ocean": 0.56,
    "desert": 0.62,
    "city": 0.80,
    "snow": 0.66,
    "forest": 0.72,
    "space": 1.1,
    "underwater": 0.84,
}


class Canvas:
    """A picture being painted: `pixels` uint8 [H, W, 3]; positions are shares of the side."""

    def __init__(self, scene: Scene, size_px: int, width: int) -> None:
        self.size_px = size_px
        self.pixels = np.zeros((size_px, size_px * width, 3), np.uint8)
        self.x = (np.arange(size_px * width, dtype=np.float32) + 0.5) / size_px
        self.y = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
        self.width = width
        self.time_of_day = scene.time_of_day
        spread = 0.08 if scene.layout == 0 else 0.3
        self.shift = 0.37 * scene.layout + spread * (scene.detail_phase - 0.5)  # sides, of details
        self.horizon = HORIZONS[scene.background] + scene.horizon_shift

    def tint(self, colour: Colour) -> Colour:
        times, plus = TINTS[self.time_of_day]
        red, green, blue = (
            min(255.0, c * t + p) for c, t, p in zip(colour, times, plus, strict=True)
        )
        return red, green, blue

    def wave(self, cycles: int, turns: float) -> np.ndarray:
        """A sine [W] with a whole number of cycles in two sides."""
        return np.sin(2 * math.pi * (cycles * (self.x + self.shift) / 2 + turns))

    def fill_below(self, edge: np.ndarray | float, top: Colour, bottom: Colour) -> None:
        """Paint all under edge [W]: `top` at its highest place to `bottom`, colours by day."""
        edge_W = np.broadcast_to(np.asarray(edge, np.float32), self.x.shape)
        first = max(0, int((edge_W.min() * self.size_px) - 1))
        rows_H = self.y[first:]
        if not len(rows_H):
            return
        alpha = np.clip((rows_H[:, None] - edge_W[None]) * self.size_px + 0.5, 0, 1)[..., None]
        mix = np.linspace(0, 1, len(rows_H), dtype=np.float32)[:, None, None]
        paint = _floats(self.tint(top)) * (1 - mix) + _floats(self.tint(bottom)) * mix
        part = self.pixels[first:]
        part[:] = (part + (paint - part) * alpha + 0.5).astype(np.uint8)

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """An anti-aliased polygon, repeated every two sides; colour as it shall look."""
        for repeat in (-2, 0, 2):
            shares = np.array(points, np.float32) + _floats((repeat, 0))
            corners = np.round((shares * self.size_px - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(self.pixels, [corners], colour, cv2.LINE_AA, 4)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        for repeat in (-2, 0, 2):
            centre = [round(((v * self.size_px) - 0.5) * 16) for v in (x + repeat, y)]
            radius_px = max(1, round(radius * self.size_px * 16))
            cv2.circle(self.pixels, centre, radius_px, colour, -1, cv2.LINE_AA, 4)

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Soft light round a point."""
        away_x = (self.x - x + 1) % 2 - 1
        square = away_x[None, :] ** 2 + (self.y - y)[:, None] ** 2
        alpha = (strength * np.exp(-square / (radius * radius)))[..., None]
        self.pixels[:] = (self.pixels + (_floats(colour) - self.pixels) * alpha).astype(np.uint8)


def _floats(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32)


def background(scene: Scene, size_px: int, width: int = 1) -> np.ndarray:
    """The background uint8 [size_px, width * size_px, 3]."""
    canvas = Canvas(scene, size_px, width)
    _sky(canvas, has_sky=scene.background != "underwater")
    PLACES[scene.background](canvas)
    return canvas.pixels


def _sky(canvas: Canvas, *, has_sky: bool) -> None:
    top, bottom = SKIES[canvas.time_of_day]
    mix = np.clip(canvas.y / 0.7, 0, 1)[:, None, None]
    canvas.pixels[:] = (_floats(top) * (1 - mix) + _floats(bottom) * mix + 0.5).astype(np.uint8)
    if not has_sky:
        return
    if canvas.time_of_day == "night":
        _stars(canvas, 26)
        canvas.glow(0.80, 0.17, 0.20, (120, 130, 170), 0.45)
        canvas.disc(0.80, 0.17, 0.082, (238, 238, 218))
        canvas.disc(0.775, 0.15, 0.014, (214, 214, 200))
        canvas.disc(0.82, 0.19, 0.020, (214, 214, 200))
        return
    if canvas.time_of_day == "sunset":
        canvas.glow(0.76, 0.50, 0.42, (255, 214, 164), 0.75)
        canvas.disc(0.76, 0.50, 0.13, (255, 236, 198))
    else:
        canvas.glow(0.82, 0.15, 0.22, (255, 252, 232), 0.85)
        canvas.disc(0.82, 0.15, 0.085, (255, 250, 218))
    _clouds(canvas)


def _stars(canvas: Canvas, num_stars: int) -> None:
    places = np.random.default_rng(5).uniform(0, 1, (num_stars * 2, 3))  # the same sky every night
    for x, y, light in places:
        canvas.disc(2 * x, 0.6 * y, 0.004 + 0.004 * light, (190 + 50 * light,) * 2 + (225,))


def _clouds(canvas: Canvas) -> None:
    mask = np.zeros(canvas.pixels.shape[:2], np.uint8)
    for x, y, radius in ((0.14, 0.17, 0.07), (0.22, 0.14, 0.09), (0.31, 0.18, 0.06)):
        for far in (0.0, 1.1):
            at = (x + far + canvas.shift) % 2
            for repeat in (-2, 0, 2):
                centre = (
                    round((at + repeat) * canvas.size_px),
                    round((y + 0.1 * far) * canvas.size_px),
                )
                axes = (round(radius * canvas.size_px * 1.25), round(radius * canvas.size_px * 0.7))
                cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
    soft = cv2.GaussianBlur(mask, (0, 0), canvas.size_px / 50).astype(np.float32)[..., None] / 255
    is_day = canvas.time_of_day == "day"
    white = _floats((255, 255, 255) if is_day else (255, 222, 206))
    canvas.pixels[:] = (canvas.pixels + (white - canvas.pixels) * (0.85 * soft)).astype(np.uint8)


def _field(canvas: Canvas) -> None:
    far = canvas.horizon - 0.06 + 0.035 * canvas.wave(2, 0.1) + 0.02 * canvas.wave(3, 0.4)
    canvas.fill_below(far, (158, 196, 158), (150, 190, 140))
    near = canvas.horizon + 0.03 + 0.035 * canvas.wave(2, 0.65)
    canvas.fill_below(near, (150, 200, 124), (112, 170, 96))
    for index, x in enumerate((0.07, 0.19, 0.93, 1.3, 1.6)):
        _tree(
            canvas,
            x + canvas.shift,
            canvas.horizon + 0.03,
            0.055 + 0.012 * (index % 2),
            (92, 146, 92),
        )


def _tree(canvas: Canvas, x: float, foot: float, radius: float, leaves: Colour) -> None:
    trunk = canvas.tint((128, 104, 88))
    wide = radius * 0.18
    canvas.polygon([(x - wide, foot - radius), (x + wide, foot - radius), (x + wide, foot + 0.02),
                    (x - wide, foot + 0.02)], trunk)  # fmt: skip
    canvas.disc(x, foot - 1.5 * radius, radius, canvas.tint(leaves))


def _ocean(canvas: Canvas) -> None:
    canvas.fill_below(canvas.horizon, (128, 184, 208), (66, 124, 164))
    light = canvas.tint((186, 220, 232))
    for row in range(7):  # strokes of waves, wider when nearer
        y = canvas.horizon + 0.035 + 0.055 * row
        length = 0.05 + 0.014 * row
        for column in range(8):
            x = (0.25 * column + 0.13 * (row % 2) + canvas.shift) % 2
            thick = 0.0025 + 0.0012 * row
            canvas.polygon(
                [(x - length, y), (x, y - thick), (x + length, y), (x, y + thick)], light
            )
    x, y = 0.16 + canvas.shift, canvas.horizon + 0.01  # a sailing boat
    canvas.polygon([(x - 0.05, y), (x + 0.05, y), (x + 0.03, y + 0.03), (x - 0.03, y + 0.03)],
                   canvas.tint((120, 92, 84)))  # fmt: skip
    canvas.polygon(
        [(x, y - 0.01), (x, y - 0.12), (x + 0.05, y - 0.01)], canvas.tint((250, 248, 240))
    )
    canvas.polygon([(x - 0.01, y - 0.01), (x - 0.01, y - 0.09), (x - 0.04, y - 0.01)],
                   canvas.tint((232, 228, 220)))  # fmt: skip


def _desert(canvas: Canvas) -> None:
    far = canvas.horizon - 0.05 + 0.05 * np.abs(canvas.wave(1, 0.05)) - 0.02
    canvas.fill_below(far, (226, 204, 168), (220, 194, 154))
    near = canvas.horizon + 0.06 + 0.045 * canvas.wave(1, 0.30) + 0.012 * canvas.wave(3, 0.2)
    canvas.fill_below(near, (230, 206, 164), (210, 180, 136))
    for x, height in ((0.12, 0.20), (0.93, 0.13), (1.5, 0.18)):
        _cactus(canvas, x + canvas.shift, canvas.horizon + 0.09, height)


def _cactus(canvas: Canvas, x: float, foot: float, height: float) -> None:
    green, wide = canvas.tint((112, 150, 112)), 0.11 * height
    tall = [
        (x - wide, foot),
        (x - wide, foot - height),
        (x + wide, foot - height),
        (x + wide, foot),
    ]
    canvas.polygon(tall, green)
    canvas.disc(x, foot - height, wide, green)
    for side, level in ((-1, 0.5), (1, 0.62)):
        far = x + side * 3.2 * wide
        y = foot - level * height
        canvas.polygon([(x, y), (far, y), (far, y + 1.5 * wide), (x, y + 1.5 * wide)], green)
        canvas.polygon([(far - 0.75 * wide, y + 1.5 * wide), (far - 0.75 * wide, y - 0.25 * height),
                        (far + 0.75 * wide, y - 0.25 * height),
                        (far + 0.75 * wide, y + 1.5 * wide)],
                       green)  # fmt: skip


def _city(canvas: Canvas) -> None:
    chance = np.random.default_rng(11)  # the same town every time
    for layer, (tone, low, high) in enumerate(
        (((178, 184, 200), 0.34, 0.5), ((136, 142, 162), 0.14, 0.38))
    ):
        x = 0.0
        while x < 2.0 - 1e-6:
            wide = min(2.0 - x, chance.uniform(0.12, 0.19))
            roof = canvas.horizon - chance.uniform(low, high)
            left, right = x + canvas.shift, x + canvas.shift + wide - 0.012 * layer
            canvas.polygon([(left, roof), (right, roof), (right, 1), (left, 1)], canvas.tint(tone))
            if layer:
                _windows(canvas, left, right, roof, chance)
            x += wide
    canvas.fill_below(canvas.horizon, (172, 170, 172), (120, 120, 128))
    stripe = canvas.tint((236, 234, 222))
    y = canvas.horizon + 0.11
    for column in range(8):
        x = 0.25 * column + canvas.shift
        canvas.polygon([(x, y), (x + 0.12, y), (x + 0.12, y + 0.016), (x, y + 0.016)], stripe)


def _windows(
    canvas: Canvas, left: float, right: float, roof: float, chance: np.random.Generator
) -> None:
    lit = (236, 214, 150) if canvas.time_of_day != "day" else (206, 220, 232)
    dark = canvas.tint((112, 118, 140))
    step = (right - left) / 3
    for row in range(5):
        y = roof + 0.03 + 0.065 * row
        for column in range(3):
            x = left + (column + 0.25) * step
            colour = lit if chance.random() < 0.65 else dark
            if y + 0.035 < canvas.horizon:
                canvas.polygon([(x, y), (x + 0.5 * step, y), (x + 0.5 * step, y + 0.035),
                                (x, y + 0.035)], colour)  # fmt: skip


def _snow(canvas: Canvas) -> None:
    for x, top, wide in (
        (0.27, 0.24, 0.42),
        (0.95, 0.32, 0.38),
        (1.55, 0.22, 0.45),
        (0.62, 0.42, 0.3),
    ):
        at, foot = x + canvas.shift, canvas.horizon + 0.1
        peak = top + canvas.horizon - 0.66
        canvas.polygon(
            [(at, peak), (at + wide, foot), (at - wide, foot)], canvas.tint((158, 172, 196))
        )
        cut = 0.42
        low = peak + (foot - peak) * cut
        zigzag = [(at + wide * cut * s, low + 0.04 * k) for s, k in
                  ((1, 0), (0.55, 1), (0.2, 0), (-0.15, 1.2), (-0.5, 0), (-1, 0.3))]  # fmt: skip
        canvas.polygon([(at, peak), *zigzag], canvas.tint((244, 247, 252)))
    ground = canvas.horizon + 0.02 + 0.025 * canvas.wave(2, 0.2)
    canvas.fill_below(ground, (240, 244, 250), (212, 224, 240))
    for x, height in ((0.08, 0.2), (0.2, 0.15), (0.93, 0.18), (1.25, 0.2), (1.7, 0.16)):
        _pine(canvas, x + canvas.shift, canvas.horizon + 0.07, height, (104, 140, 132))


def _pine(canvas: Canvas, x: float, foot: float, height: float, leaves: Colour) -> None:
    for level in range(3):
        top, wide = foot - height * (1 - 0.24 * level), height * (0.2 + 0.07 * level)
        low = top + 0.45 * height
        canvas.polygon([(x, top), (x + wide, low), (x - wide, low)], canvas.tint(leaves))


def _forest(canvas: Canvas) -> None:
    canvas.fill_below(
        canvas.horizon - 0.25 + 0.03 * canvas.wave(3, 0.2), (136, 168, 146), (126, 160, 130)
    )
    for layer, tone in enumerate(((112, 150, 124), (86, 128, 100))):
        for column in range(10):
            x = 0.2 * column + 0.1 * layer + canvas.shift
            height = 0.42 + 0.08 * math.sin(7.0 * column + layer)
            _pine(canvas, x, canvas.horizon + 0.04 + 0.05 * layer, height, tone)
    canvas.fill_below(canvas.horizon + 0.02 * canvas.wave(2, 0.7), (142, 158, 112), (108, 124, 84))


def _space(canvas: Canvas) -> None:
    canvas.fill_below(-0.1, (96, 88, 128), (62, 66, 104))
    canvas.glow(0.3, 0.7, 0.4, canvas.tint((150, 110, 160)), 0.5)
    _stars(canvas, 60)
    canvas.glow(0.8, 0.22, 0.2, canvas.tint((220, 190, 170)), 0.5)
    canvas.disc(0.8, 0.22, 0.12, canvas.tint((206, 172, 152)))
    canvas.polygon(
        [(0.58, 0.27), (0.8, 0.22), (1.02, 0.16), (0.8, 0.245)], canvas.tint((232, 214, 190))
    )


def _underwater(canvas: Canvas) -> None:
    canvas.fill_below(-0.01, (136, 206, 204), (50, 116, 140))
    for x in (0.1, 0.5, 0.9, 1.4, 1.8):
        canvas.glow(x + canvas.shift, 0.0, 0.16, canvas.tint((206, 240, 232)), 0.6)
    for x in (0.06, 0.16, 0.86, 0.95, 1.3, 1.6):
        for level in range(6):
            sway = 0.018 * math.sin(level * 1.3 + 9 * x)
            canvas.disc(x + sway + canvas.shift, canvas.horizon + 0.05 - 0.05 * level, 0.022,
                        canvas.tint((92, 152, 122)))  # fmt: skip
    canvas.fill_below(canvas.horizon + 0.02 * canvas.wave(2, 0.1), (206, 200, 168), (176, 168, 138))


PLACES: dict[str, Callable[[Canvas], None]] = {
    "field": _field,
    "ocean": _ocean,
    "desert": _desert,
    "city": _city,
    "snow": _snow,
    "forest": _forest,
    "space": _space,
    "underwater": _underwater,
}
