"""Prompts that training never drew, and what the clips that they ask for should show."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace

import numpy as np

from streamgen.types import Pixels
from tiny_scores.shares import Attributes
from tiny_world.captions import COLOURS, MOTIONS, NIGHTLY, PLACES, SHAPES, TIMES, caption
from tiny_world.render import render
from tiny_world.scene import FULL, SMALL, Scene, World, sample_scene
from tiny_world.styles import STYLES, apply_style

HELD_OUT_SEED = 987_654_321  # training draws from seeds that start with its own small one
CHOICE_DRAW, SCORE_DRAW = 0, 1  # prompts that choices are made on, and those that figures are of
WORLDS = {"small": SMALL, "full": FULL}
CONTENT = ("colour", "shape", "motion", "background", "time_of_day")
UNSTYLED_NAMES = (*CONTENT, "style")
STYLED_NAMES = ("style", "background", "time_of_day")  # what can be measured in every style
STYLE_NAMES = tuple(style for style in STYLES if style != "none")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sentence, the scene that it describes, and the seed of its stream."""

    text: str
    scene: Scene
    seed: int

    @property
    def attributes(self) -> Attributes:
        return {name: asdict(self.scene)[name] for name in UNSTYLED_NAMES}


def held_out_prompts(
    world: World, num_prompts: int, *, style: bool, draw: int = SCORE_DRAW
) -> list[Prompt]:
    """Sentences that name shape, colour, motion, background and time, `style` ones a style too.

    Scenes, wordings and noise are drawn anew. The small world has 1,440 combinations of its
    names, so training has met most of them in other words, places and phases: this measures
    whether prompts are followed, not whether the world can be left.
    """
    return [_draw(world, index, style=style, draw=draw) for index in range(num_prompts)]


def _draw(world: World, index: int, *, style: bool, draw: int) -> Prompt:
    rng = np.random.default_rng((HELD_OUT_SEED + draw, int(style), index))
    scene = replace(sample_scene(rng, world), style="none")
    if style:
        scene = replace(scene, style=STYLE_NAMES[index % len(STYLE_NAMES)])
    while True:
        text = caption(scene, rng)
        if names_everything(text, scene):
            return Prompt(text, scene, seed=int(rng.integers(2**31)))


def names_everything(text: str, scene: Scene) -> bool:
    """Whether a sentence says colour, shape, motion, background and time of a scene."""
    phrases = (
        (scene.colour, *COLOURS[scene.colour].split()),
        (scene.shape, *SHAPES[scene.shape].split()),
        (scene.motion, *MOTIONS[scene.motion]),
        (scene.background, *PLACES[scene.background]),
        (scene.time_of_day, *TIMES[scene.time_of_day], *NIGHTLY[scene.time_of_day]),
    )
    return all(any(_says(text, phrase) for phrase in one) for one in phrases)


def _says(text: str, phrase: str) -> bool:
    return re.search(rf"\b{re.escape(phrase)}\b", text) is not None


def true_clip(scene: Scene, first_frame: int, num_frames: int) -> Pixels:
    """What the prompt asks for: the scene rendered, in its style."""
    return apply_style(render(scene, first_frame, num_frames), scene.style)
