"""Does a stream that begins with a picture go on with what the picture shows?

The prompt names the motion alone, so that object, place and time can come from nowhere else. The
control is the same prompt and seed without the picture.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

from streamgen.types import Pixels
from tiny_scores.attributes import SCORED_FRAMES, see
from tiny_scores.prompts import CONTENT, Prompt, true_clip
from tiny_scores.results import Facts
from tiny_scores.shares import agreement, shares_json, shuffled_agreement
from tiny_scores.sheets import Row, write_sheet
from tiny_scores.streams import TEXT_PRESET, Order, Setup, collect_clips
from tiny_world.captions import MOTIONS
from tiny_world.scene import World

NUM_FRAMES = 104  # the window slides over the picture's own frames many times
SHEET_ROWS = 15


def measure_first(
    setup: Setup, prompts: Sequence[Prompt], world: World, *, sheets: Path | None
) -> dict[str, Facts]:
    """Shares of what the picture shows in the last frames, and of the named motion."""
    words = [MOTIONS[prompt.scene.motion][0] for prompt in prompts]
    with tempfile.TemporaryDirectory() as scratch, setup.host(TEXT_PRESET) as host:
        paths = [Path(scratch) / f"{index}.png" for index in range(len(prompts))]
        for path, prompt in zip(paths, prompts, strict=True):
            picture = true_clip(prompt.scene, 0, 1)[0]
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        kinds = {
            "with the picture": [
                Order(text, prompt.seed, first=path)
                for text, prompt, path in zip(words, prompts, paths, strict=True)
            ],
            "without": [
                Order(text, prompt.seed) for text, prompt in zip(words, prompts, strict=True)
            ],
        }
        found: dict[str, Facts] = {}
        for name, orders in kinds.items():
            clips = collect_clips(host, orders, num_frames=NUM_FRAMES)
            rows = [Row(p.text, clip) for p, clip in zip(prompts, clips, strict=True)]
            write_sheet(sheets, f"first-{name.replace(' ', '-')}", rows[:SHEET_ROWS])
            found[name] = _score(prompts, clips, world)
    return found


def _score(prompts: Sequence[Prompt], clips: Sequence[Pixels], world: World) -> Facts:
    wanted = [prompt.attributes for prompt in prompts]
    seen = [see(clip[-SCORED_FRAMES:], world) for clip in clips]
    return {
        "frames": NUM_FRAMES,
        "prompt": shares_json(agreement(wanted, seen, CONTENT)),
        "shuffled": shares_json(shuffled_agreement(wanted, seen, CONTENT)),
    }
