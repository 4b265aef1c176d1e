"""What a clip shows: names for the caption and a few small continuous parameters; draws nothing.

Two sizes of the world: `SMALL` is low in entropy, for training on a CPU; `FULL` has more of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FPS = 16  # frames a second of every clip
PERIOD_FRAMES = 32  # after so many frames a motion is back where it was
PAN_PERIOD_FRAMES = 256  # after so many frames a panned background is back where it was


@dataclass(frozen=True, slots=True)
class Scene:
    """One endless clip: `render` makes any window of it."""

    shape: str  # one of World.shapes
    colour: str  # one of World.colours
    size: str  # "big", "medium" or "small"
    motion: str  # one of World.motions
    background: str  # one of World.backgrounds
    time_of_day: str  # "day", "night" or "sunset"
    weather: str  # "clear", "rain", "snowfall" or "fog"
    pan: str  # direction in which the camera pans: "none", "left" or "right"
    style: str  # one of `styles.STYLES`; drawn by `styles.apply_style`, not by `render`
    diameter: float  # of the object, as a share of the picture's side
    centre_x: float  # resting place of the object, share of the side, about .5
    centre_y: float  # the same, downwards
    amplitude: float  # reach of the motion from its centre, share of the side
    phase: float  # of the motion at frame 0, in turns, small
    horizon_shift: float  # of the background, share of the side, about +-.03
    detail_phase: float  # of hills, clouds, buildings, in turns, 0..1 of one of few layouts
    layout: int  # which of the few layouts of the background, 0..World.layouts-1
    seed: int  # of rain, snow and stars


@dataclass(frozen=True, slots=True)
class World:
    """The values a scene may take, and how wide its continuous parameters spread."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    sizes: tuple[str, ...]
    motions: tuple[str, ...]
    backgrounds: tuple[str, ...]
    times: tuple[str, ...]
    weathers: tuple[str, ...]
    pans: tuple[str, ...]
    styles: tuple[str, ...]
    jitter: float  # of places, share of the picture's side
    layouts: int  # distinct layouts of a background


SMALL = World(
    shapes=("ball", "box", "triangle", "star"),
    colours=("red", "orange", "yellow", "green", "blue", "purple"),
    sizes=("big",),
    motions=("bouncing", "swinging", "circling", "hovering"),
    backgrounds=("field", "ocean", "desert", "city", "snow"),
    times=("day", "night", "sunset"),
    weathers=("clear",),
    pans=("none",),
    styles=("none",),
    jitter=0.015,
    layouts=1,
)

FULL = World(
    shapes=(
        "ball",
        "box",
        "triangle",
        "star",
        "heart",
        "diamond",
        "ring",
        "cross",
        "moon",
        "flower",
    ),
    colours=("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
    sizes=("small", "medium", "big"),
    motions=("bouncing", "swinging", "circling", "hovering", "spinning", "pulsing", "zigzagging"),
    backgrounds=("field", "ocean", "desert", "city", "snow", "forest", "space", "underwater"),
    times=("day", "night", "sunset"),
    weathers=("clear", "rain", "snowfall", "fog"),
    pans=("none", "left", "right"),
    styles=("none", "sketch", "neon", "sepia", "comic", "ice"),
    jitter=0.05,
    layouts=3,
)

DIAMETERS = {"big": 0.36, "medium": 0.27, "small": 0.19}  # share of the picture's side
AMPLITUDES = {  # reach from the centre, share of the side
    "bouncing": 0.32,
    "swinging": 0.24,
    "circling": 0.17,
    "hovering": 0.012,
    "spinning": 0.012,
    "pulsing": 0.012,
    "zigzagging": 0.24,
}


def sample_scene(rng: np.random.Generator, world: World) -> Scene:
    """Draw every attribute uniformly and the continuous parameters close to their means.

    Weather and pan are "clear" and "none" in half of the scenes of a world that has others too.
    """
    jitter = world.jitter
    size = _pick(rng, world.sizes)
    shape, motion = _pick(rng, world.shapes), _pick(rng, world.motions)
    if motion == "spinning" and shape in ("ball", "ring"):  # nobody could see it
        motion = "hovering"
    is_grounded = motion == "bouncing"
    return Scene(
        shape=shape,
        colour=_pick(rng, world.colours),
        size=size,
        motion=motion,
        background=_pick(rng, world.backgrounds),
        time_of_day=_pick(rng, world.times),
        weather=_pick_rest(rng, world.weathers),
        pan=_pick_rest(rng, world.pans),
        style=_pick_rest(rng, world.styles),
        diameter=DIAMETERS[size] * (1 + rng.uniform(-2, 2) * jitter),
        centre_x=0.5 + rng.uniform(-1, 1) * jitter,
        centre_y=(0.74 if is_grounded else 0.5) + rng.uniform(-0.6, 0.6) * min(jitter, 0.02),
        amplitude=AMPLITUDES[motion] * (1 + rng.uniform(-2, 2) * min(jitter, 0.03)),
        phase=rng.uniform(-0.02, 0.02),
        horizon_shift=rng.uniform(-0.03, 0.03),
        detail_phase=rng.uniform(0, 1),
        layout=int(rng.integers(world.layouts)),
        seed=int(rng.integers(2**31)),
    )


def _pick(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def _pick_rest(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    """The first value in half of the draws, else any of the others."""
    if len(values) == 1 or rng.random() < 0.5:
        return values[0]
    return _pick(rng, values[1:])
