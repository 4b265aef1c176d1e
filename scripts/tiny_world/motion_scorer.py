"""The motion from the object's track: how far and how often it goes each way."""

from __future__ import annotations

import numpy as np

from tiny_world.scene import World
from tiny_world.track import Track

MIN_FRAMES = 24  # a shorter clip does not show a whole motion
STILL_PX = 4.0  # standard deviation of a place below which an object is still, at 128 px
MIN_PULSE = 0.09  # relative standard deviation of the diameter above which an object pulses
MIN_TURN = 0.10  # mean share of the mask that changes above which an object turns


def classify_motion(track: Track, num_frames: int, world: World) -> str | None:
    """The name of a motion; None if the clip is too short or the way fits none of the world."""
    if num_frames < MIN_FRAMES:
        return None
    spread_x, spread_y = track.centres.std(axis=0)
    if max(spread_x, spread_y) < STILL_PX:
        name = _in_place(track)
    elif spread_y > 1.8 * spread_x:
        name = "bouncing"
    elif (
        spread_y > STILL_PX
        and _num_turns(track.centres[:, 1]) > _num_turns(track.centres[:, 0]) + 2
    ):
        name = "zigzagging"
    elif spread_x > 1.8 * spread_y:
        name = "swinging"
    else:
        name = "circling"
    if name in world.motions:
        return name
    return "hovering" if max(spread_x, spread_y) < STILL_PX else None


def _in_place(track: Track) -> str:
    diameters = np.sqrt(track.areas)
    if diameters.std() > MIN_PULSE * diameters.mean():
        return "pulsing"
    masks = track.masks > 0.5
    change = (masks != (masks.mean(axis=0) > 0.5)).mean() / masks.mean()
    return "spinning" if change > MIN_TURN else "hovering"


def _num_turns(way: np.ndarray) -> int:
    """How often a coordinate [K] turns back, wobbles of less than a fifth of its reach left out."""
    least = 0.2 * np.ptp(way)
    turns, extreme, direction = 0, way[0], 0
    for place in way:
        if direction * (place - extreme) > 0 or (direction == 0 and abs(place - extreme) > least):
            direction = direction or int(np.sign(place - extreme))
            extreme = place
        elif direction and abs(place - extreme) > least:
            direction, extreme = -direction, place
            turns += 1
    return turns
