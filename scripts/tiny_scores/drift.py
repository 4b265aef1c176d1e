"""Does a long stream fade, blur, freeze or forget?  With sinks, without, with its whole past."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from streamgen.metrics.json_value import Json
from streamgen.types import Pixels
from tiny_scores.attributes import SCORED_FRAMES, see
from tiny_scores.pictures import Look, look_of
from tiny_scores.prompts import CONTENT, Prompt, true_clip
from tiny_scores.shares import agreement, shares_json, shuffled_agreement
from tiny_scores.sheets import NUM_COLUMNS, Row, write_sheet
from tiny_scores.streams import TEXT_PRESET, Order, Setup, play, through_codec
from tiny_world.scene import World

SPAN_FRAMES = 100  # compared at the start and at the end
FRAMES_A_LATENT = 4

logger = logging.getLogger(__name__)


def variants(num_frames: int) -> dict[str, tuple[str, ...]]:
    """Settings of the cache by name.

    The last one keeps every latent frame. Positions inside the window then grow beyond those of
    training (6), so it also asks whether the model extrapolates.
    """
    whole = -(-num_frames // FRAMES_A_LATENT)
    return {
        "preset": (),
        "no sinks": ("cache.sinks=0", "cache.ring=6"),
        "whole past": ("cache.sinks=0", f"cache.ring={whole}"),
    }


class Watch:
    """What is kept of one stream: the look of every frame, and the frames of two windows."""

    def __init__(self, num_frames: int) -> None:
        middle = min(SPAN_FRAMES, num_frames // 2)
        start = max(0, min(middle - SCORED_FRAMES // 2, num_frames - SCORED_FRAMES))
        self.windows = {
            "early": range(start, min(num_frames, start + SCORED_FRAMES)),
            "late": range(max(0, num_frames - SCORED_FRAMES), num_frames),
        }
        self._shown = set(np.linspace(0, num_frames - 1, NUM_COLUMNS).round().astype(int).tolist())
        self._before: Pixels | None = None
        self._kept: dict[int, Pixels] = {}
        self.looks: list[Look] = []

    def add(self, frame: Pixels) -> None:
        index = len(self.looks)
        self.looks.append(look_of(frame, self._before))
        self._before = frame
        if index in self._shown or any(index in window for window in self.windows.values()):
            self._kept[index] = frame.copy()

    def window(self, name: str) -> Pixels:
        return np.stack([self._kept[index] for index in self.windows[name]])

    def overview(self) -> Pixels:
        return np.stack([self._kept[index] for index in sorted(self._shown)])


def measure_drift(
    setup: Setup,
    prompts: Sequence[Prompt],
    world: World,
    *,
    name: str,
    num_frames: int,
    sheets: Path | None,
) -> dict[str, Json]:
    """One variant: looks of the first and last 100 frames, scores about frame 100 and the end."""
    setup = Setup(setup.weights, setup.overrides, sessions=len(prompts))
    with setup.host(TEXT_PRESET, *variants(num_frames)[name]) as host:
        watches = [Watch(num_frames) for _ in prompts]
        orders = [Order(prompt.text, prompt.seed) for prompt in prompts]
        for index, frame in play(host, orders, num_frames=num_frames):
            watches[index].add(frame)
        truths = [through_codec(host, true_clip(p.scene, 0, SCORED_FRAMES)) for p in prompts]
    rows = [Row(p.text, watch.overview()) for p, watch in zip(prompts, watches, strict=True)]
    write_sheet(sheets, f"drift-{name.replace(' ', '-')}", rows)
    logger.info("drift: %s done", name)
    span = min(SPAN_FRAMES, num_frames // 2)
    found: dict[str, Json] = {
        "overrides": list(variants(num_frames)[name]),
        "streams": len(prompts),
        "frames": num_frames,
        "look": {
            "first": _mean_look([watch.looks[:span] for watch in watches]),
            "last": _mean_look([watch.looks[-span:] for watch in watches]),
            "truth through the codec": _mean_look([_looks(clip) for clip in truths]),
        },
    }
    wanted = [prompt.attributes for prompt in prompts]
    for window in ("early", "late"):
        seen = [see(watch.window(window), world) for watch in watches]
        where = watches[0].windows[window]
        found[window] = {
            "frames": [where.start, where.stop],
            "prompt": shares_json(agreement(wanted, seen, CONTENT)),
            "shuffled": shares_json(shuffled_agreement(wanted, seen, CONTENT)),
        }
    return found


def _looks(clip: Pixels) -> list[Look]:
    return [look_of(frame, clip[index - 1] if index else None) for index, frame in enumerate(clip)]


def _mean_look(streams: Sequence[Sequence[Look]]) -> dict[str, Json]:
    """Means over frames and streams; a stream's first frame has no change."""
    looks = [look for stream in streams for look in stream]
    return {
        field.name: round(float(np.mean([getattr(look, field.name) for look in looks])), 3)
        for field in fields(Look)
    }
