"""How long after a change of the prompt does a stream show the new one?"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streamgen.metrics.json_value import Json
from streamgen.types import Pixels
from tiny_scores.attributes import SCORED_FRAMES, see
from tiny_scores.prompts import CONTENT, Prompt
from tiny_scores.shares import Attributes, Share, agreement, shares_json, shuffled_agreement
from tiny_scores.sheets import Row, write_sheet
from tiny_scores.streams import TEXT_PRESET, Order, Setup, open_stream
from tiny_world.captions import canonical_prompt
from tiny_world.scene import Scene, World

SWITCHES = {"background": "backgrounds", "colour": "colours", "shape": "shapes"}
EVERYTHING = "everything"
WINDOW_FRAMES = 8  # two latent frames; windows begin every four frames
STEP_FRAMES = 4
SHEET_ROWS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """Two scenes that differ in one name, or in all."""

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


def see_unchanged(
    setup: Setup, prompts: Sequence[Prompt], world: World, *, frames_before: int, frames_after: int
) -> list[list[Attributes]]:
    """The control of all switches: every window of the same streams when nothing is changed."""
    stays = [Change("background", one.scene, one.scene, one.seed) for one in prompts]
    clips = _play_all(setup, stays, frames_before=frames_before, frames_after=frames_after)
    return [list(_windows(clip[frames_before:], world)) for clip in clips]


def measure_switch(
    setup: Setup,
    made: Sequence[Change],
    world: World,
    *,
    unchanged: Sequence[Sequence[Attributes]],
    frames_before: int,
    frames_after: int,
    sheets: Path | None,
) -> dict[str, Json]:
    """Frames from the change until two windows in a row show the new value, for every stream.

    The wait counts frames that come out after `stream.prompt` was set, what was under way
    included; frames are taken as soon as they are there, so that hardly any finished ones wait.
    The control: in how many of the `unchanged` streams, in the order of `made`, do two windows
    show the new value all the same? Beside it, what is seen just before the change and at the end.
    """
    attribute = made[0].attribute
    clips = _play_all(setup, made, frames_before=frames_before, frames_after=frames_after)
    _write_sheet(made, clips, sheets)
    old = [getattr(change.old, attribute) for change in made]
    new = [getattr(change.new, attribute) for change in made]
    waits = [
        first_shown(_windows(clip[frames_before:], world), attribute, value)
        for clip, value in zip(clips, new, strict=True)
    ]
    chance_waits = [
        first_shown(windows, attribute, value)
        for windows, value in zip(unchanged, new, strict=True)
    ]
    shown = sorted(wait for wait in waits if wait is not None)
    before = [see(clip[frames_before - WINDOW_FRAMES : frames_before], world) for clip in clips]
    late = [see(clip[-SCORED_FRAMES:], world) for clip in clips]
    logger.info("switch: %s done", attribute)
    return {
        "frames_before": frames_before,
        "frames_after": frames_after,
        "waits": list(waits),
        "median_wait": float(np.median(shown)) if shown else None,
        "shown": Share(len(shown), len(waits)).to_json(),
        "shown_unchanged": Share(
            sum(wait is not None for wait in chance_waits), len(waits)
        ).to_json(),
        "old_before": _share([one[attribute] for one in before], old).to_json(),
        "new_before": _share([one[attribute] for one in before], new).to_json(),
        "old_at_end": _share([one[attribute] for one in late], old).to_json(),
        "new_at_end": _share([one[attribute] for one in late], new).to_json(),
    }


def measure_new_scenes(
    setup: Setup,
    prompts: Sequence[Prompt],
    world: World,
    *,
    frames_before: int,
    frames_after: int,
    sheets: Path | None,
) -> dict[str, Json]:
    """What is seen at the end of streams whose prompt became that of the next scene, all of it.

    The control compares with what still another scene shows.
    """
    following = [*prompts[1:], prompts[0]]
    made = [
        Change(EVERYTHING, old.scene, new.scene, old.seed)
        for old, new in zip(prompts, following, strict=True)
    ]
    clips = _play_all(setup, made, frames_before=frames_before, frames_after=frames_after)
    _write_sheet(made, clips, sheets)
    wanted = [prompt.attributes for prompt in following]
    late = [see(clip[-SCORED_FRAMES:], world) for clip in clips]
    logger.info("switch: %s done", EVERYTHING)
    return {
        "frames_before": frames_before,
        "frames_after": frames_after,
        "at_end": shares_json(agreement(wanted, late, CONTENT)),
        "at_end_shuffled": shares_json(shuffled_agreement(wanted, late, CONTENT)),
    }


def first_shown(windows: Iterable[Attributes], attribute: str, value: str) -> int | None:
    """The first frame of two windows in a row that show the value; None if there are none."""
    was_shown = False
    for number, seen in enumerate(windows):
        is_shown = seen[attribute] == value
        if is_shown and was_shown:
            return (number - 1) * STEP_FRAMES
        was_shown = is_shown
    return None


def _write_sheet(made: Sequence[Change], clips: Sequence[Pixels], sheets: Path | None) -> None:
    rows = [
        Row(f"{canonical_prompt(change.old)} -> {canonical_prompt(change.new)}", clip)
        for change, clip in zip(made, clips, strict=True)
    ]
    write_sheet(sheets, f"switch-{made[0].attribute}", rows[:SHEET_ROWS])


def _windows(clip: Pixels, world: World) -> Iterator[Attributes]:
    for start in range(0, len(clip) - WINDOW_FRAMES + 1, STEP_FRAMES):
        yield see(clip[start : start + WINDOW_FRAMES], world)


def _play_all(
    setup: Setup, made: Sequence[Change], *, frames_before: int, frames_after: int
) -> list[Pixels]:
    clips: list[Pixels] = []
    for first in range(0, len(made), setup.sessions):
        group = made[first : first + setup.sessions]
        clips += _play_changes(setup, group, frames_before=frames_before, frames_after=frames_after)
    return clips


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
