"""Clips on which the codec is trained: 60 % of the procedural world, 40 % photographs, some styled.

A background process draws them into a pool in shared memory; the trainer picks batches from there.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import numpy as np
import torch

from streamgen.clock import MonotonicClock
from streamgen.models.tiny.codec import FRAMES
from streamgen.types import Pixels
from tiny_world.photos import load_pictures, photo_clip
from tiny_world.render import render
from tiny_world.scene import FULL, SMALL, sample_scene
from tiny_world.styles import STYLES, apply_style

SharedBytes = ctypes.Array[ctypes.c_uint8]

SIDE = 128  # pixels
NUM_FRAMES = 2 * FRAMES  # of a clip: a start and a latent frame that has a past
POOL_CLIPS = 1024
PRODUCER_SHARE = 0.1  # of one core, once the pool is full
FULL_SHARE = 0.4  # of the procedural clips: from the world that has more of everything
WORLD_SHARE = 0.6  # of the clips; the rest are photographs
STYLE_SHARE = 0.4  # of the photographs
HELD_OUT_EVERY = 8  # one picture of so many is kept for measuring
HELD_OUT_CLIPS = 32  # of each kind


@dataclass(frozen=True, slots=True)
class Pool:
    """Clips in shared memory and the process that keeps replacing them.

    A clip may be replaced while it is read; then it holds a cut, which does no harm.
    """

    _clips: Pixels
    _num_drawn: ctypes.c_int64
    _producer: BaseProcess

    @classmethod
    def start(cls, *, seed: int, pictures: Path) -> Pool:
        context = multiprocessing.get_context("spawn")
        memory = context.RawArray(ctypes.c_uint8, POOL_CLIPS * NUM_FRAMES * SIDE * SIDE * 3)
        num_drawn = context.RawValue(ctypes.c_int64, 0)
        producer = context.Process(
            target=_produce, args=(memory, num_drawn, seed, pictures), daemon=True
        )
        producer.start()
        return cls(_as_clips(memory), num_drawn, producer)

    def wait_for(self, num_clips: int) -> None:
        clock = MonotonicClock()
        while self._num_drawn.value < num_clips:
            self.check()
            clock.sleep(0.1)

    def pixels(self, slots: np.ndarray) -> Pixels:
        return self._clips[slots]

    def sample(self, rng: np.random.Generator, size: int) -> Pixels:
        num_clips = min(self._num_drawn.value, POOL_CLIPS)
        return self._clips[rng.integers(num_clips, size=size)]

    def check(self) -> None:
        if not self._producer.is_alive():
            raise RuntimeError("the process that draws clips has died; its traceback is above")

    def stop(self) -> None:
        self._producer.terminate()
        self._producer.join()


def _as_clips(memory: SharedBytes) -> Pixels:
    flat = np.ctypeslib.as_array(memory)
    return flat.reshape(POOL_CLIPS, NUM_FRAMES, SIDE, SIDE, 3)


def _produce(memory: SharedBytes, num_drawn: ctypes.c_int64, seed: int, folder: Path) -> None:
    """Fill the pool as fast as possible, then replace clips with a small share of a core."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    clock, clips = MonotonicClock(), _as_clips(memory)
    pictures = split_pictures(folder)[0]
    rng = np.random.default_rng((seed, 1))
    while True:
        started_s = clock.now()
        is_world = rng.random() < WORLD_SHARE
        clip = world_clip(rng) if is_world else styled_photo_clip(rng, pictures)
        clips[num_drawn.value % POOL_CLIPS] = clip
        num_drawn.value += 1
        if num_drawn.value >= POOL_CLIPS:
            clock.sleep((clock.now() - started_s) * (1 / PRODUCER_SHARE - 1))


def world_clip(rng: np.random.Generator) -> Pixels:
    """A window of a scene of the small or the full world, in its style."""
    scene = sample_scene(rng, FULL if rng.random() < FULL_SHARE else SMALL)
    clip = render(scene, int(rng.integers(512)), NUM_FRAMES)
    return clip if scene.style == "none" else apply_style(clip, scene.style)


def styled_photo_clip(rng: np.random.Generator, pictures: list[Pixels]) -> Pixels:
    clip = photo_clip(rng, pictures, NUM_FRAMES)
    if rng.random() >= STYLE_SHARE:
        return clip
    styles = [style for style in STYLES if style != "none"]
    return apply_style(clip, styles[int(rng.integers(len(styles)))])


def split_pictures(folder: Path) -> tuple[list[Pixels], list[Pixels]]:
    """Pictures to train on and pictures held out."""
    pictures = load_pictures(folder)
    held_out = pictures[::HELD_OUT_EVERY]
    return [p for index, p in enumerate(pictures) if index % HELD_OUT_EVERY], held_out


def held_out_clips(seed: int, folder: Path) -> dict[str, Pixels]:
    """Clips that no training sees: photographs as they are, photographs in styles, both worlds."""
    rng = np.random.default_rng((seed, 2))
    pictures = split_pictures(folder)[1]
    clips = {
        "photo": [photo_clip(rng, pictures, NUM_FRAMES) for _ in range(HELD_OUT_CLIPS)],
        "styled": [styled_photo_clip(rng, pictures) for _ in range(HELD_OUT_CLIPS)],
        "world": [world_clip(rng) for _ in range(HELD_OUT_CLIPS)],
    }
    return {name: np.stack(values) for name, values in clips.items()}
