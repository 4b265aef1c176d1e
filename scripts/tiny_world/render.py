"""Pictures of a scene: a pure function of (scene, frame index), for any window of endless clips."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from tiny_world.background import background
from tiny_world.motion import Pose, pose
from tiny_world.objects import sprite
from tiny_world.scene import PAN_PERIOD_FRAMES, Scene
from tiny_world.weather import add_weather

SHADOW_STRENGTH = 0.42  # share of light that the darkest part of the shadow takes


def render(scene: Scene, first_frame: int, num_frames: int, size_px: int = 128) -> np.ndarray:
    """The frames first_frame .. first_frame + num_frames - 1: uint8 [T, H, W, 3] RGB.

    `scene.style` is not applied: `styles.apply_style(clip, scene.style)` does that.
    """
    still, picture, shadow = _parts(scene, size_px)
    clip = np.empty((num_frames, size_px, size_px, 3), np.uint8)
    for index in range(num_frames):
        frame_index = first_frame + index
        frame = clip[index]
        frame[:] = _window(still, scene, frame_index, size_px)
        place = pose(scene, frame_index)
        _draw_shadow(frame, shadow, place, scene, size_px)
        _draw_object(frame, picture, place, size_px)
        add_weather(frame, scene, frame_index)
    return clip


@functools.lru_cache(maxsize=16)
def _parts(scene: Scene, size_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What does not change during a clip: background, sprite, shadow."""
    still = background(scene, size_px, width=1 if scene.pan == "none" else 2)
    picture = sprite(scene.shape, scene.colour, scene.diameter * size_px)
    side = round(2 * scene.diameter * size_px)
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    shadow = np.clip(1.15 * (1 - axis[None] ** 2 - axis[:, None] ** 2), 0, 1)
    return still, picture, shadow.astype(np.float32)


def _window(still: np.ndarray, scene: Scene, frame_index: int, size_px: int) -> np.ndarray:
    if scene.pan == "none":
        return still
    turns = (frame_index % PAN_PERIOD_FRAMES) / PAN_PERIOD_FRAMES
    offset = turns * still.shape[1] * (1 if scene.pan == "right" else -1)
    columns = (np.arange(size_px) + round(offset)) % still.shape[1]
    return still[:, columns]


def _draw_object(frame: np.ndarray, picture: np.ndarray, place: Pose, size_px: int) -> None:
    """Warp the sprite to its place and lay it over the frame, in place."""
    reach = picture.shape[0] / 4 * 1.3 + 1
    left, right = _range(place.x * size_px, reach, size_px)
    top, bottom = _range(place.y * size_px, reach, size_px)
    if right <= left or bottom <= top:
        return
    cosine, sine = np.cos(place.turn), np.sin(place.turn)
    matrix = np.array(
        [
            [0.5 * cosine * place.stretch_x, -0.5 * sine * place.stretch_y],
            [0.5 * sine * place.stretch_x, 0.5 * cosine * place.stretch_y],
        ]
    )
    middle = np.array([(picture.shape[1] - 1) / 2, (picture.shape[0] - 1) / 2])
    target = np.array([place.x * size_px - 0.5 - left, place.y * size_px - 0.5 - top])
    affine = np.concatenate([matrix, (target - matrix @ middle)[:, None]], 1)
    patch = cv2.warpAffine(picture, affine, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    part = frame[top:bottom, left:right]
    part[:] = (part * (1 - patch[..., 3:]) + patch[..., :3] + 0.5).clip(0, 255).astype(np.uint8)


def _draw_shadow(
    frame: np.ndarray, shadow: np.ndarray, place: Pose, scene: Scene, size_px: int
) -> None:
    """A soft ellipse on the ground, smaller and fainter the higher the object is, in place."""
    height = max(0.0, place.ground_y - scene.diameter / 2 - place.y)
    nearness = 1 / (1 + 2.2 * height)
    wide, tall = 0.52 * scene.diameter * nearness * size_px, 0.11 * scene.diameter * size_px
    left, right = _range(place.x * size_px, wide + 1, size_px)
    top, bottom = _range(place.ground_y * size_px, tall + 1, size_px)
    if right <= left or bottom <= top:
        return
    scale_x, scale_y = 2 * wide / shadow.shape[1], 2 * tall / shadow.shape[0]
    middle = (shadow.shape[0] - 1) / 2
    affine = np.array(
        [
            [scale_x, 0, place.x * size_px - 0.5 - left - scale_x * middle],
            [0, scale_y, place.ground_y * size_px - 0.5 - top - scale_y * middle],
        ]
    )
    patch = cv2.warpAffine(shadow, affine, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    part = frame[top:bottom, left:right]
    part[:] = (part * (1 - SHADOW_STRENGTH * nearness * patch[..., None])).astype(np.uint8)


def _range(centre: float, reach: float, limit: int) -> tuple[int, int]:
    return max(0, int(centre - reach)), min(limit, int(centre + reach) + 1)
