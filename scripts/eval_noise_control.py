"""Measure the two motion-aware noise controllers, and beginning anew at cuts, on real clips.

    python scripts/eval_noise_control.py --clips a.mp4 b.mp4 c.mp4

Levels: each clip under made-up changes of light (a step, a slow swing, flicker), and each followed
by each other one. A controller is good if light does not move it, if it agrees with the published
one where there is no light to take off, and if it finds the cuts and nothing else.

Pictures: the tiny model restyles spliced clips as it is and beginning anew at the cut; edges of
what it draws are compared with those of the new scene, and of the old one, which must not show, and
its first colours with its later ones.

Writes benchmarks/noise-control.json and contact sheets.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from streamgen.diffusion.noise_control import (
    MotionNoiseController,
    NoiseController,
    RobustNoiseController,
)
from streamgen.diffusion.scenes import SceneWatch
from streamgen.serving.host import Host
from streamgen.serving.stream import Stream
from streamgen.types import Pixels
from tiny_scores.sheets import Row, write_sheet
from tiny_scores.streams import ClipSource, load_clip

CHUNK = 4
INITIAL, FIRST_TIMESTEP = 0.8, 700.0  # as published
AFTER = 2 * CHUNK  # frames after a cut that are looked at
PROMPT = "a pencil sketch"


def step_of_light(times_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset a frame: a lamp goes on in the middle."""
    is_on = (times_T >= len(times_T) // 2).astype(float)
    return 0.7 + 0.5 * is_on, -0.1 + 0.2 * is_on


def swing_of_light(times_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Automatic exposure that hunts, a second and a half a turn at 16 frames/s."""
    wave = np.sin(2 * np.pi * times_T / 24)
    return 1 + 0.3 * wave, 0.1 * wave


def flicker_of_light(times_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every other frame is darker: mains light and a short shutter."""
    return np.where(times_T % 2 == 0, 1.0, 0.8), np.zeros(len(times_T))


LIGHTS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "step": step_of_light,
    "swing": swing_of_light,
    "flicker": flicker_of_light,
}


def pixels_of(clip: Pixels) -> torch.Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1


def lit(clip: Pixels, light: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Pixels:
    gain_T, offset_T = (v[:, None, None, None] for v in light(np.arange(len(clip))))
    return np.clip((clip / 127.5 - 1) * gain_T * 127.5 + 127.5 + offset_T * 127.5, 0, 255).astype(
        np.uint8
    )


def scales(controller: NoiseController, clip: Pixels) -> np.ndarray:
    chunks = [clip[at : at + CHUNK] for at in range(0, len(clip) - CHUNK + 1, CHUNK)]
    return np.array([controller.next(pixels_of(chunk)).scale for chunk in chunks])


def controllers() -> dict[str, NoiseController]:
    return {
        "published": MotionNoiseController(INITIAL, first_timestep=FIRST_TIMESTEP),
        "robust": RobustNoiseController(INITIAL, first_timestep=FIRST_TIMESTEP),
    }


def measure_light(clips: dict[str, Pixels]) -> dict[str, object]:
    """Mean change of the noise scale that light alone makes; 0 is right, 0.1 is the whole range."""
    result: dict[str, object] = {}
    for name, light in LIGHTS.items():
        result[name] = {
            kind: round(
                float(
                    np.mean(
                        [
                            np.abs(
                                scales(controllers()[kind], lit(clip, light))
                                - scales(controllers()[kind], clip)
                            ).mean()
                            for clip in clips.values()
                        ]
                    )
                ),
                4,
            )
            for kind in controllers()
        }
    gaps = [
        np.abs(np.subtract(*(scales(one, clip) for one in controllers().values()))).mean()
        for clip in clips.values()
    ]
    result["robust against published, no change of light"] = round(float(np.mean(gaps)), 4)
    return result


def found_cuts(clip: Pixels) -> list[int]:
    watch, cuts = SceneWatch(), []
    for at in range(len(clip)):
        if watch.look(pixels_of(clip[at : at + 1])).cut is not None:
            cuts.append(at)
    return cuts


def measure_cuts(clips: dict[str, Pixels]) -> dict[str, object]:
    """How many of the splices are found, and how many cuts are seen where nothing was spliced."""
    inside = {name: found_cuts(clip) for name, clip in clips.items()}
    under_light = {
        name: [
            cut
            for light in LIGHTS.values()
            for cut in found_cuts(lit(clip, light))
            if cut not in inside[name]
        ]
        for name, clip in clips.items()
    }
    pairs = list(itertools.permutations(clips, 2))
    missed = [
        f"{one} to {two}"
        for one, two in pairs
        if found_cuts(np.concatenate([clips[one][-CHUNK:], clips[two][:CHUNK]])) != [CHUNK]
    ]
    return {
        "splices": len(pairs),
        "splices found": len(pairs) - len(missed),
        "splices missed": missed,
        "frames without a splice": sum(len(clip) for clip in clips.values()),
        "cuts seen in them": {name: cuts for name, cuts in inside.items() if cuts},
        "further cuts seen under changed light": {k: v for k, v in under_light.items() if v},
    }


def edges(picture: Pixels) -> np.ndarray:
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 1.5).astype(float)
    return np.hypot(cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)).ravel()


def agreement(one: Pixels, two: Pixels) -> float:
    return float(np.corrcoef(edges(one), edges(two))[0, 1])


def colour_cast(early: Pixels, late: Pixels) -> float:
    """How far the mean colours of some frames lie apart, in grey levels."""
    return float(np.abs(early.mean(axis=(0, 1, 2)) - late.mean(axis=(0, 1, 2))).mean())


def restyle(kind: str, clip: Pixels, prompt: str) -> Pixels:
    with (
        Host("tiny-cpu-v2v", overrides=[f"noise_control.kind={kind}"]) as host,
        Stream(host, prompt=prompt, source=ClipSource(clip), strength=0.5) as stream,
    ):
        return np.stack([frame.pixels for frame in stream])


def measure_pictures(
    clips: dict[str, Pixels], kinds: list[str], sheets: Path | None
) -> dict[str, object]:
    """Mean edge agreement of the first frames after a cut with the new scene, and with the old."""
    scores: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in kinds}
    names = list(clips)
    for one, two in zip(names, names[1:] + names[:1], strict=True):
        spliced = np.concatenate([clips[one][: 6 * CHUNK], clips[two][: 6 * CHUNK]])
        cut, old = 6 * CHUNK, clips[one][6 * CHUNK - 1]
        drawn = {kind: restyle(kind, spliced, PROMPT) for kind in kinds}
        for kind, frames in drawn.items():
            early = range(cut, cut + AFTER)
            late = range(cut + AFTER, cut + 5 * CHUNK)
            scores[kind].append(
                (
                    float(np.mean([agreement(frames[at], spliced[at]) for at in early])),
                    float(np.mean([agreement(frames[at], old) for at in early])),
                    float(np.mean([agreement(frames[at], spliced[at]) for at in late])),
                    colour_cast(frames[cut : cut + CHUNK], frames[late.start : late.stop]),
                )
            )
        shown = [Row("input", spliced[cut - 4 : cut + 12])]
        shown += [Row(kind, frames[cut - 4 : cut + 12]) for kind, frames in drawn.items()]
        write_sheet(sheets, f"cut-{one}-{two}", shown)
    labels = (
        "edges of the new scene, 8 frames after the cut",
        "edges of the old scene, the same frames",
        "edges of the new scene, later",
        "colour cast of the first 4 frames against later ones, grey levels",
    )
    return {
        kind: {
            label: round(float(np.mean(column)), 3)
            for label, column in zip(labels, zip(*rows, strict=True), strict=True)
        }
        for kind, rows in scores.items()
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Noise controllers on real clips.")
    parser.add_argument("--clips", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--frames", type=int, default=64, help="of each clip, at 16 a second")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/noise-control.json"))
    parser.add_argument("--sheets", type=Path, default=Path("benchmarks/sheets"))
    parser.add_argument("--kinds", nargs="+", default=["fixed", "scenes", "robust"])
    options = parser.parse_args()
    clips = {path.stem: load_clip(path, options.frames) for path in options.clips}
    result = {
        "clips": {name: len(clip) for name, clip in clips.items()},
        "change of scale by light": measure_light(clips),
        "cuts": measure_cuts(clips),
        "pictures, tiny model": measure_pictures(clips, options.kinds, options.sheets),
    }
    text = json.dumps(result, indent=2)
    print(text)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
