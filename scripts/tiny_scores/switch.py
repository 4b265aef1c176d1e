"""How long after a change of the prompt does a stream show the new one?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streamgen.metrics.json_value import Json
from streamgen.types import Pixels
from tiny_scores.attributes import SCORED_FRAMES, see
from tiny_scores.prompts import Prompt
from tiny_scores.shares import Share
from tiny_scores.sheets import Row, write_sheet
from tiny_scores.streams import TEXT_PRESET, Order, Setup, open_stream
from tiny_world.captions import canonical_prompt
from tiny_world.scene import Scene, World

SWITCHES = {"background": "backgrounds", "colour": "colours", "shape": "shapes"}
WINDOW_FRAMES = 8  # two latent frames; windows begin every four frames
STEP_FRAMES = 4
SHEET_ROWS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """Two scenes that differ in one name."""

    attribute: str
    old: Scene
    new: Scene
    seed: int


def changes(prompts: Sequence[Prompt], attribute: str, world: World) -> list[Change]:
    """Each prompt's scene, and the same with another value of the attribute."""
    values: tuple[str, ...] = getattr(world, SWITCHES[attribute])
    made = []
    for number, prompt in enumerate(prompts):
        here = values.index(getattr(prompt.scene, attribute))
        other = values[(here + 1 + number % (len(values) - 1)) % len(values)]
        new = replace(prompt.scene, **{attribute: other})
        made.append(Change(attribute, prompt.scene, new, prompt.seed))
    return made


def measure_switch(
    setup: Setup,
    made: Sequence[Change],
    world: World,
    *,
    frames_before: int,
    frames_after: int,
    sheets: Path | None,
) -> dict[str, Json]:
    """Frames from the change to the first window that shows the new value, for every stream.

    The wait counts frames that come out after `stream.prompt` was set, what was under way
    included; frames are taken as soon as they are there, so that hardly any finished ones wait.
    Beside it: how often a window before the change shows the old value (how well the streams are
    read at all) and the new one (chance), and what the last 32 frames show.
    """
    attribute = made[0].attribute
    clips: list[Pixels] = []
    for first in range(0, len(made), setup.sessions):
        group = made[first : first + setup.sessions]
        clips += _play_changes(setup, group, frames_before=frames_before, frames_after=frames_after)
    rows = [
        Row(f"{canonical_prompt(change.old)} -> {canonical_prompt(change.new)}", clip)
        for change, clip in zip(made, clips, strict=True)
    ]
    write_sheet(sheets, f"switch-{attribute}", rows[:SHEET_ROWS])
    waits = [
        first_shown(clip[frames_before:], attribute, getattr(change.new, attribute), world)
        for change, clip in zip(made, clips, strict=True)
    ]
    shown = sorted(wait for wait in waits if wait is not None)
    before = [see(clip[frames_before - WINDOW_FRAMES : frames_before], world) for clip in clips]
    late = [see(clip[-SCORED_FRAMES:], world) for clip in clips]
    old = [getattr(change.old, attribute) for change in made]
    new = [getattr(change.new, attribute) for change in made]
    logger.info("switch: %s done", attribute)
    return {
        "frames_before": frames_before,
        "frames_after": frames_after,
        "waits": list(waits),
        "median_wait": float(np.median(shown)) if shown else None,
        "shown": Share(len(shown), len(waits)).to_json(),
        "old_before": _share([one[attribute] for one in before], old).to_json(),
        "new_before": _share([one[attribute] for one in before], new).to_json(),
        "old_at_end": _share([one[attribute] for one in late], old).to_json(),
        "new_at_end": _share([one[attribute] for one in late], new).to_json(),
    }


def first_shown(clip: Pixels, attribute: str, value: str, world: World) -> int | None:
    """The first frame from which eight frames show the value; None if none does."""
    for start in range(0, len(clip) - WINDOW_FRAMES + 1, STEP_FRAMES):
        if see(clip[start : start + WINDOW_FRAMES], world)[attribute] == value:
            return start
    return None


def _play_changes(
    setup: Setup, group: Sequence[Change], *, frames_before: int, frames_after: int
) -> list[Pixels]:
    with ExitStack() as stack:
        host = stack.enter_context(setup.host(TEXT_PRESET))
        orders = [Order(canonical_prompt(change.old), change.seed) for change in group]
        total = frames_before + frames_after
        streams = [
            stack.enter_context(open_stream(host, order, num_frames=total)) for order in orders
        ]
        frames: list[list[Pixels]] = [[] for _ in streams]
        for index in range(total):
            if index == frames_before:
                for stream, change in zip(streams, group, strict=True):
                    stream.prompt = canonical_prompt(change.new)
            for stream, kept in zip(streams, frames, strict=True):
                kept.append(next(stream).pixels)
        return [np.stack(kept) for kept in frames]


def _share(seen: Sequence[str | None], wanted: Sequence[str]) -> Share:
    return Share(sum(a == b for a, b in zip(seen, wanted, strict=True)), len(wanted))
