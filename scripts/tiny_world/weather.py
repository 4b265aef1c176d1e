"""Rain, snowfall and fog over finished frames: functions of (scene, frame index), periodic."""

from __future__ import annotations

import cv2
import numpy as np

from tiny_world.scene import PERIOD_FRAMES, Scene

FOG = (206, 210, 214)  # RGB by day


def add_weather(frame: np.ndarray, scene: Scene, frame_index: int) -> None:
    """Paint the scene's weather over a frame uint8 [H, W, 3], in place."""
    if scene.weather == "clear":
        return
    side = frame.shape[0]
    if scene.weather == "fog":
        dim = 0.4 if scene.time_of_day == "night" else 1.0
        fog = np.array(FOG, np.float32) * dim
        drift = np.sin(2 * np.pi * (np.arange(side) / side + frame_index / PERIOD_FRAMES))
        alpha = (0.42 + 0.08 * drift * np.linspace(0.3, 1, side))[:, None, None]
        frame[:] = (frame + (fog - frame) * alpha.astype(np.float32)).astype(np.uint8)
        return
    turns = (frame_index % PERIOD_FRAMES) / PERIOD_FRAMES
    drops = np.random.default_rng(scene.seed).uniform(0, 1, (70, 3))
    for x, y, speed in drops:
        if scene.weather == "rain":
            at_x, at_y = (x - 0.25 * turns) % 1, (y + (2 + round(2 * speed)) * turns) % 1
            first = np.array([at_x, at_y]) * side
            last = first + np.array((-0.012, 0.055)) * side
            ends = np.round(np.stack([first, last]) * 16).astype(int)
            cv2.line(frame, ends[0].tolist(), ends[1].tolist(), (190, 204, 220), 1, cv2.LINE_AA, 4)
        else:
            at_x = (x + 0.02 * np.sin(2 * np.pi * (turns + speed))) % 1
            at_y = (y + (1 + round(speed)) * turns) % 1
            centre = np.round(np.array([at_x, at_y]) * side * 16).astype(int).tolist()
            radius = round((0.007 + 0.006 * speed) * side * 16)
            cv2.circle(frame, centre, radius, (244, 247, 252), -1, cv2.LINE_AA, 4)
