"""The codec's fixed half: a linear transform into latents, from principal components.

Fixed before anything else is trained, so that the DiT and the decoder can learn side by side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from streamgen.models.tiny.codec import TinyCodec
from tiny_training.codec_stage import calibrate, initialise_from_components
from tiny_world.photos import load_pictures, photo_clip
from tiny_world.render import render
from tiny_world.scene import PERIOD_FRAMES, World, sample_scene
from tiny_world.styles import STYLES, apply_style

NUM_CLIPS = 600
CLIP_FRAMES = 12
WORLD_SHARE = 0.6
WORLD_STYLE_SHARE = 0.2
PICTURE_STYLE_SHARE = 0.5


def sample_clips(
    world: World, pictures: list[np.ndarray], rng: np.random.Generator, *, num_clips: int
) -> np.ndarray:
    """uint8 [clip, T, H, W, 3]: the world and real pictures, some of each in a style."""
    styles = [style for style in STYLES if style != "none"]
    clips = []
    for _ in range(num_clips):
        if rng.random() < WORLD_SHARE:
            scene = sample_scene(rng, world)
            clip = render(scene, int(rng.integers(PERIOD_FRAMES)), CLIP_FRAMES)
            is_styled = rng.random() < WORLD_STYLE_SHARE
        else:
            clip = photo_clip(rng, pictures, CLIP_FRAMES)
            is_styled = rng.random() < PICTURE_STYLE_SHARE
        clips.append(apply_style(clip, str(rng.choice(styles))) if is_styled else clip)
    return np.stack(clips)


def fit_transform(path: Path, world: World, *, pictures: Path, seed: int) -> None:
    """Fit the linear transform and its inverse, and write a codec that has nothing else yet."""
    rng = np.random.default_rng(seed)
    clips = sample_clips(world, load_pictures(pictures), rng, num_clips=NUM_CLIPS)
    codec = TinyCodec()
    initialise_from_components(codec, clips)
    calibrate(codec, clips)
    partial = path.with_suffix(".partial")
    torch.save(codec.state_dict(), partial)
    partial.replace(path)


def load_codec(path: Path) -> TinyCodec:
    """A codec from a stage's checkpoint."""
    codec = TinyCodec()
    codec.load_state_dict(torch.load(path, weights_only=True))
    return codec.eval().requires_grad_(False)
