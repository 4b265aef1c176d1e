"""Where the object is at a frame: a periodic function of the frame index; draws nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tiny_world.scene import PERIOD_FRAMES, Scene

SQUASH = 0.16  # how flat an object gets when it touches the ground, share of its height
GROUND_MARGIN = 0.02  # between the lowest point of an object and its shadow, share of the side


@dataclass(frozen=True, slots=True)
class Pose:
    """Place and form of the object in one frame; lengths are shares of the picture's side."""

    x: float
    y: float  # of its centre, downwards
    turn: float  # radians, clockwise
    stretch_x: float
    stretch_y: float
    ground_y: float  # where its shadow lies


def pose(scene: Scene, frame: int) -> Pose:
    """The pose at a frame index; `pose(scene, k) == pose(scene, k + PERIOD_FRAMES)`."""
    turns = (frame % PERIOD_FRAMES) / PERIOD_FRAMES + scene.phase
    angle = 2 * math.pi * turns
    x, y, reach = scene.centre_x, scene.centre_y, scene.amplitude
    turn, stretch_x, stretch_y = 0.0, 1.0, 1.0
    if scene.motion == "bouncing":  # starts at the top, touches the ground half a period later
        fall = 2 * (turns % 1.0) - 1
        height = 1 - (1 - abs(fall)) ** 2
        y -= reach * height
        stretch_y = 1 - SQUASH * max(0.0, 1 - 6 * height)
        stretch_x = 2 - stretch_y
        y += scene.diameter * (1 - stretch_y) / 2
    elif scene.motion == "swinging":
        x += reach * math.sin(angle)
    elif scene.motion == "circling":
        x += reach * math.sin(angle)
        y -= reach * math.cos(angle)
    elif scene.motion == "zigzagging":  # two ups and downs on every way across
        x += reach * math.sin(angle)
        y += 0.5 * reach * math.sin(4 * angle)
    else:
        y += reach * math.sin(angle)
        if scene.motion == "spinning":
            turn = angle
        elif scene.motion == "pulsing":
            stretch_x = stretch_y = 1 + 0.25 * math.sin(angle)
    floor = scene.centre_y if scene.motion == "bouncing" else 0.74
    ground_y = min(0.97, floor + scene.diameter / 2 + GROUND_MARGIN)
    return Pose(x, y, turn, stretch_x, stretch_y, ground_y)
