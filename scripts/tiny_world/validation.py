"""How often the scorer is right when the truth is known: the upper bound of a model's scores."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace

import cv2
import numpy as np

from tiny_world.render import render
from tiny_world.scene import FULL, SMALL, Scene, World, sample_scene
from tiny_world.scorer import Observation, score_clip
from tiny_world.styles import STYLES, apply_style

ATTRIBUTES = tuple(field.name for field in fields(Observation))
SOFT_BLUR_PX = 1.5  # at 128 px, as a codec would
SOFT_NOISE = 5.0  # standard deviation of grey levels
NUM_FRAMES = 32

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def soften(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur and noise like those of a small codec: uint8 [T, H, W, 3]."""
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), SOFT_BLUR_PX) for frame in clip])
    noisy = blurred + rng.normal(0, SOFT_NOISE, clip.shape).astype(np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def unchanged(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return clip


def agreement(scenes: list[Scene], observed: list[Observation]) -> dict[str, float]:
    """Share of clips whose observation agrees with the scene, for every attribute."""
    pairs = list(zip(scenes, observed, strict=True))
    return {
        name: float(np.mean([getattr(scene, name) == getattr(seen, name) for scene, seen in pairs]))
        for name in ATTRIBUTES
    }


def confusions(scenes: list[Scene], observed: list[Observation], name: str) -> str:
    """The commonest mistakes in one attribute, as text."""
    wrong = Counter(
        f"{getattr(scene, name)}->{getattr(seen, name)}"
        for scene, seen in zip(scenes, observed, strict=True)
        if getattr(scene, name) != getattr(seen, name)
    )
    return ", ".join(f"{pair} {count}" for pair, count in wrong.most_common(4))


def validate(
    num_scenes: int = 300, *, world: World = SMALL, seed: int = 0, has_styles: bool = False
) -> dict[str, dict[str, float]]:
    """Accuracy per attribute on the truth, softened, and against strangers' captions; printed too.

    With styles, every scene gets a random one; read only background, time and style.
    """
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, world) for _ in range(num_scenes)]
    styles = [STYLES[int(rng.integers(len(STYLES)))] if has_styles else "none" for _ in scenes]
    scenes = [replace(scene, style=style) for scene, style in zip(scenes, styles, strict=True)]
    results: dict[str, dict[str, float]] = {}
    changes: tuple[tuple[str, Change], ...] = (("ground truth", unchanged), ("softened", soften))
    for name, change in changes:
        observed = []
        for scene in scenes:
            clip = apply_style(render(scene, int(rng.integers(64)), NUM_FRAMES), scene.style)
            observed.append(score_clip(change(clip, rng), world))
        results[name] = agreement(scenes, observed)
        _print_row(name, results[name])
        for attribute in ATTRIBUTES:
            if text := confusions(scenes, observed, attribute):
                print(f"    {attribute}: {text}")
    others = [observed[(index + 1) % num_scenes] for index in range(num_scenes)]
    results["shuffled"] = agreement(scenes, others)
    _print_row("shuffled", results["shuffled"])
    return results


def _print_row(name: str, accuracies: dict[str, float]) -> None:
    print(f"{name:14s}" + "  ".join(f"{key} {value:.3f}" for key, value in accuracies.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument(
        "--full", action="store_true", help="the full world instead of the small one"
    )
    options = parser.parse_args()
    for has_styles in (False, True):
        print("with random styles" if has_styles else "without styles")
        world = FULL if options.full else SMALL
        world = replace(world, styles=("none",))
        validate(options.scenes, world=world, has_styles=has_styles)
