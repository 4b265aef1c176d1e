"""Measure the tiny model: do its clips show what their prompts say, do they last, do they follow?

    python scripts/eval_tiny.py --sheets sheets
    python scripts/eval_tiny.py --weights runs/tiny.safetensors --parts scores --steps 2 1
    python scripts/eval_tiny.py --parts restyle --clips holiday.mp4 street.mp4

Parts: `bounds` (what a perfect model would score), `codec` (what it leaves of a picture), `scores`
(held-out prompts), `drift` (streams of 1,000 frames), `switch` (prompts that change in one name),
`scenes` (prompts that change altogether), `first` (streams that begin with a picture), `restyle`
(video to video). `--draw 0` are the prompts that choices between weights and settings are made on,
`--draw 1` those that nobody has looked at. Each part is written as soon as it is there; parts of
the same weights and settings add up in one file. Everything goes through `Host` and `Stream`;
shares come with their 95 % intervals, bounds and controls.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent))

from streamgen.errors import StreamGenError
from streamgen.types import Pixels
from tiny_scores import attributes, codec, drift, first, prompts, restyle, switch
from tiny_scores.prompts import WORLDS, held_out_prompts, true_clip
from tiny_scores.results import Facts, Results
from tiny_scores.streams import TIMESTEPS, Setup, load_clip
from tiny_scores.tables import tables

PARTS = ("bounds", "codec", "scores", "drift", "switch", "scenes", "first", "restyle")
MIN_FRAMES = 4 + attributes.SCORED_FRAMES

logger = logging.getLogger("eval_tiny")


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("streamgen").setLevel(logging.WARNING)
    cv2.setNumThreads(1)
    setup = Setup(options.weights, tuple(options.overrides), options.sessions)
    try:
        results = Results(options.out, _facts(options, setup))
        for part in options.parts:
            began_s = time.perf_counter()
            MEASURES[part](options, setup, results)
            logger.info("%s took %.0f s", part, time.perf_counter() - began_s)
    except StreamGenError as error:
        print(f"eval_tiny: {error}", file=sys.stderr)
        return error.exit_code
    print(tables(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--weights", default="package", metavar="FILE", help="instead of the package's")
    add("--world", choices=sorted(WORLDS), default="small", help="what the weights were trained on")
    add("--out", type=Path, default=Path("benchmarks/tiny-scores.json"), metavar="FILE")
    add("--sheets", type=Path, metavar="FOLDER", help="for contact sheets; none if left out")
    add("--parts", nargs="+", choices=PARTS, default=PARTS)
    add("--prompts", type=_at_least(2), default=200, metavar="N", help="without a style; 200")
    add("--styled", type=_at_least(2), metavar="N", help="prompts with a style; half of --prompts")
    add("--steps", type=int, nargs="+", choices=sorted(TIMESTEPS), default=(4, 2, 1))
    add("--frames", type=_at_least(MIN_FRAMES), default=40, metavar="N", help="of scored streams")
    add("--sessions", type=_at_least(1), default=8, metavar="N", help="streams at once")
    add("--drift-streams", type=_at_least(2), default=8, metavar="N")
    add("--variants", nargs="+", choices=sorted(drift.variants(4)), metavar="NAME",
        help="of drift; all if left out")  # fmt: skip
    add("--draw", type=int, choices=(0, 1), default=prompts.SCORE_DRAW, help="of the prompts; 1")
    add(
        "--openings",
        type=_at_least(2),
        default=48,
        metavar="N",
        help="first pictures, and changes of the whole scene",
    )
    add("--drift-frames", type=_at_least(MIN_FRAMES), default=1000, metavar="N")
    add("--switches", type=_at_least(1), default=16, metavar="N", help="of each kind")
    add("--switch-frames", type=_at_least(32), default=96, metavar="N", help="after the change")
    add("--clips", type=Path, nargs="+", default=(), metavar="FILE", help="real videos")
    add(
        "--procedural",
        type=_at_least(2),
        default=4,
        metavar="N",
        help="clips of its own world",
    )
    add("--clip-frames", type=_at_least(8), default=48, metavar="N", help="of each of these clips")
    add("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="a setting of both presets, as denoise.shift=5; may be given again")  # fmt: skip
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    """A type of argument: a whole number from `least` up."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is too few, at least {least}")
        return value

    return number


def _facts(options: argparse.Namespace, setup: Setup) -> Facts:
    """What all parts of one file have in common."""
    with setup.host("tiny-cpu") as host:
        knowledge = host.pipeline.bundle.knowledge
    return {
        "weights_sha256": setup.fingerprint(),
        "knowledge": knowledge,
        "world": options.world,
        "overrides": list(setup.overrides),
        "held_out_seed": prompts.HELD_OUT_SEED + options.draw,
        "frames": options.frames,
        "scored_frames": attributes.SCORED_FRAMES,
    }


def _kinds(options: argparse.Namespace) -> attributes.Kinds:
    world = WORLDS[options.world]
    num_styled = max(2, options.prompts // 2) if options.styled is None else options.styled
    return {
        "plain": held_out_prompts(world, options.prompts, style=False, draw=options.draw),
        "styled": held_out_prompts(world, num_styled, style=True, draw=options.draw),
    }


def measure_bounds(options: argparse.Namespace, setup: Setup, results: Results) -> None:
    found = attributes.score_bounds(
        setup,
        _kinds(options),
        WORLDS[options.world],
        num_frames=options.frames,
        sheets=options.sheets,
    )
    for kind, value in found.items():
        results.put("bounds", kind, value)


def measure_codec(options: argparse.Namespace, setup: Setup, results: Results) -> None:
    kinds = {"own world": _procedural_clips(options)}
    if options.clips:
        kinds["real clips"] = _real_clips(options)
    for kind, value in codec.measure_codec(setup, kinds).items():
        results.put("codec", kind, value)


def measure_scores(options: argparse.Namespace, setup: Setup, results: Results) -> None:
    for num_steps in options.steps:
        found = attributes.score_prompts(
            setup,
            _kinds(options),
            WORLDS[options.world],
            num_steps=num_steps,
            num_frames=options.frames,
            sheets=options.sheets,
        )
        results.put("scores", str(num_steps), found)


def measure_drift(options: argparse.Namespace, setup: Setup, results: Results) -> None:
    world = WORLDS[options.world]
    chosen = held_out_prompts(world, options.drift_streams, style=False, draw=options.draw)
    for name in options.variants or drift.variants(options.drift_frames):
        found = drift.measure_drift(
            setup,
            chosen,
            world,
            name=name,
            num_frames=options.drift_frames,
            sheets=options.sheets,
        )
        results.put("drift", name, found)


def measure_switch(options: argparse.Namespace, setup: Setup, results: Results) -> None:
    world = WORLDS[options.world]
    chosen = held_out_prompts(world, options.switches, style=False, draw=options.draw)
    unchanged = switch.see_unchanged(
        setup, chosen, world, frames_before=options.frames, frames_after=options.switch_frames
    )
    for attribute in switch.SWITCHES:
        found = switch.measure_switch(
            setup,
            switch.changes(chosen, attribute, world),
            world,
            unchanged=unchanged,
            frames_before=options.frames,
            frames_after=options.switch_frames,
            sheets=options.sheets,
        )
        results.put("switch", attribute, found)


def measure_new_scenes(options: argparse.Namespace, setup: Setup, results: Results) -> None:
    world = WORLDS[options.world]
    found = switch.measure_new_scenes(
        setup,
        held_out_prompts(world, options.openings, style=False, draw=options.draw),
        world,
        frames_before=options.frames,
        frames_after=options.switch_frames,
        sheets=options.sheets,
    )
    results.put("scenes", "all", found)


def measure_first(options: argparse.Namespace, setup: Setup, results: Results) -> None:
    world = WORLDS[options.world]
    chosen = held_out_prompts(world, options.openings, style=False, draw=options.draw)
    for name, value in first.measure_first(setup, chosen, world, sheets=options.sheets).items():
        results.put("first", name, value)


def measure_restyle(options: argparse.Namespace, setup: Setup, results: Results) -> None:
    clips = _real_clips(options) | _procedural_clips(options)
    results.put("restyle", "all", restyle.measure_restyling(setup, clips, sheets=options.sheets))


def _real_clips(options: argparse.Namespace) -> dict[str, Pixels]:
    return {path.stem: load_clip(path, options.clip_frames) for path in options.clips}


def _procedural_clips(options: argparse.Namespace) -> dict[str, Pixels]:
    world = WORLDS[options.world]
    chosen = held_out_prompts(world, options.procedural, style=False, draw=options.draw)
    return {
        f"procedural-{index + 1}": true_clip(prompt.scene, 0, options.clip_frames)
        for index, prompt in enumerate(chosen)
    }


MEASURES = {
    "bounds": measure_bounds,
    "codec": measure_codec,
    "scores": measure_scores,
    "drift": measure_drift,
    "switch": measure_switch,
    "scenes": measure_new_scenes,
    "first": measure_first,
    "restyle": measure_restyle,
}


if __name__ == "__main__":
    sys.exit(main())
