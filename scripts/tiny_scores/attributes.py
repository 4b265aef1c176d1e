"""Do clips show what their prompts say?  And what a perfect model would score, behind the codec."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from streamgen.metrics.json_value import Json
from streamgen.types import Pixels
from tiny_scores.prompts import STYLED_NAMES, UNSTYLED_NAMES, Prompt, true_clip
from tiny_scores.results import Facts
from tiny_scores.shares import Attributes, agreement, shares_json, shuffled_agreement
from tiny_scores.sheets import Row, write_sheet
from tiny_scores.streams import (
    TEXT_PRESET,
    Order,
    Setup,
    collect_clips,
    ladder_override,
    through_codec,
)
from tiny_world.scene import World
from tiny_world.scorer import score_clip

SCORED_FRAMES = 32  # one period of every motion; the scorer reads motion from 24 on
START_FRAMES = 8  # two latent frames
SHEET_ROWS = 15

logger = logging.getLogger(__name__)

Kinds = dict[str, list[Prompt]]
"""Prompts by kind: "plain" and "styled"."""

NAMES = {"plain": UNSTYLED_NAMES, "styled": STYLED_NAMES}


def see(clip: Pixels, world: World) -> Attributes:
    return asdict(score_clip(clip, world))


def score_bounds(
    setup: Setup, kinds: Kinds, world: World, *, num_frames: int, sheets: Path | None
) -> dict[str, Facts]:
    """What the scorer finds in the true clips, as they are and through the codec.

    The share of true clips that agree with another prompt is what chance gives.
    """
    found: dict[str, Facts] = {}
    with setup.host(TEXT_PRESET) as host:
        for kind, prompts in kinds.items():
            truths = [
                true_clip(p.scene, num_frames - SCORED_FRAMES, SCORED_FRAMES) for p in prompts
            ]
            decoded = [through_codec(host, clip) for clip in truths]
            found[kind] = {
                "truth": _score(prompts, truths, kind, world),
                "codec": _score(prompts, decoded, kind, world),
            }
            pairs = zip(prompts, truths, decoded, strict=True)
            rows = [
                row
                for prompt, truth, again in list(pairs)[: SHEET_ROWS // 2]
                for row in (Row(f"truth: {prompt.text}", truth), Row("through the codec", again))
            ]
            write_sheet(sheets, f"bounds-{kind}", rows)
            logger.info("bounds: %s done", kind)
    return found


def score_prompts(
    setup: Setup,
    kinds: Kinds,
    world: World,
    *,
    num_steps: int,
    num_frames: int,
    sheets: Path | None,
) -> dict[str, Json]:
    """Streams of every prompt with so many steps, scored on their last 32 frames.

    Under "KIND, start" the first 8 frames alone, without the motion: what comes out of noise with
    no past to go by.
    """
    found: dict[str, Json] = {}
    with setup.host(TEXT_PRESET, ladder_override(num_steps)) as host:
        for kind, prompts in kinds.items():
            orders = [Order(prompt.text, prompt.seed) for prompt in prompts]
            clips = collect_clips(host, orders, num_frames=num_frames)
            ends = [clip[-SCORED_FRAMES:] for clip in clips]
            found[kind] = _score(prompts, ends, kind, world)
            found[f"{kind}, start"] = _score(
                prompts, [c[:START_FRAMES] for c in clips], kind, world
            )
            rows = [Row(p.text, clip) for p, clip in zip(prompts, clips, strict=True)]
            write_sheet(sheets, f"scores-{kind}-{num_steps}-steps", rows[:SHEET_ROWS])
            logger.info("scores: %s with %d steps done", kind, num_steps)
    return found


def _score(
    prompts: Sequence[Prompt], clips: Sequence[Pixels], kind: str, world: World
) -> dict[str, Json]:
    wanted = [prompt.attributes for prompt in prompts]
    seen = [see(clip, world) for clip in clips]
    return {
        "prompt": shares_json(agreement(wanted, seen, NAMES[kind])),
        "shuffled": shares_json(shuffled_agreement(wanted, seen, NAMES[kind])),
    }
