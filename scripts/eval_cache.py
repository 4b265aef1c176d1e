"""Measure cache policies with the tiny model: does a new prompt show sooner, does a stream last?

    python scripts/eval_cache.py --sheets sheets
    python scripts/eval_cache.py --policies plain recache --switches 16 --drift-frames 1000

The tiny model was trained with one sink, a ring of three and positions inside the window; policies
that tell it other positions, or mix its keys, are beyond its training, and that shows here too.
Adaptive sinks need the cache mode of video to video, where prompts do not say what is drawn, and
are left out. Uses the scores of scripts/eval_tiny.py, on fewer prompts.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent))

from tiny_scores import attributes, drift, switch
from tiny_scores.prompts import HELD_OUT_SEED, WORLDS, held_out_prompts
from tiny_scores.results import Facts, Results
from tiny_scores.streams import Setup

POLICIES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "flush": ("cache.on_prompt=flush", "cache.flush_keeps=1"),
    "recache": ("cache.on_prompt=recache",),
    "recompute": ("cache.mode=recompute",),
    "cascaded": ("cache.mode=cascaded",),
    "cascaded, two passes behind": ("cache.mode=cascaded", "cache.cascade_lag=2"),
    "ema": ("cache.sink_kind=ema", "cache.sink_decay=0.99"),
    "within": ("cache.positions=absolute", "cache.sink_place=within", "cache.sink_reach=4"),
    "refresh": ("cache.positions=absolute", "cache.refresh=5"),
    "absolute": ("cache.positions=absolute",),
}
ATTRIBUTES = ("background", "colour")
SCORED_AT = 40  # frames of a scored stream

logger = logging.getLogger("eval_cache")


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("streamgen").setLevel(logging.WARNING)
    cv2.setNumThreads(1)
    world = WORLDS["small"]
    prompts = held_out_prompts(world, options.switches, style=False)
    facts: Facts = {
        "weights_sha256": Setup("package", (), 1).fingerprint(),
        "held_out_seed": HELD_OUT_SEED,
        "switches": options.switches,
        "frames_before": options.frames_before,
        "frames_after": options.frames_after,
        "drift_streams": options.drift_streams,
        "drift_frames": options.drift_frames,
        "prompts": options.prompts,
    }
    kinds = {
        "plain": held_out_prompts(world, options.prompts, style=False),
        "styled": held_out_prompts(world, options.prompts // 2, style=True),
    }
    results = Results(options.out, facts)
    for name in options.policies:
        setup = Setup("package", POLICIES[name], options.switches)
        sheets = None if options.sheets is None else options.sheets / name
        began_s = time.perf_counter()
        if options.prompts:
            scores = attributes.score_prompts(
                setup, kinds, world, num_steps=4, num_frames=SCORED_AT, sheets=sheets
            )
            results.put("scores", name, scores)
        span = {"frames_before": options.frames_before, "frames_after": options.frames_after}
        unchanged = switch.see_unchanged(setup, prompts, world, **span)
        for attribute in options.attributes:
            made = switch.changes(prompts, attribute, world)
            found = switch.measure_switch(
                setup, made, world, unchanged=unchanged, sheets=sheets, **span
            )
            results.put(f"switch {attribute}", name, found)
        found = drift.measure_drift(
            setup,
            prompts[: options.drift_streams],
            world,
            name="preset",
            num_frames=options.drift_frames,
            sheets=sheets,
        )
        found["overrides"] = [*POLICIES[name]]
        results.put("drift", name, found)
        logger.info("%s took %.0f s", name, time.perf_counter() - began_s)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("benchmarks/tiny-cache-policies.json"), metavar="FILE")
    add("--sheets", type=Path, metavar="FOLDER", help="for contact sheets; none if left out")
    add("--policies", nargs="+", choices=sorted(POLICIES), default=tuple(POLICIES))
    add("--attributes", nargs="+", choices=ATTRIBUTES, default=ATTRIBUTES, help="to change")
    add(
        "--prompts",
        type=int,
        default=0,
        metavar="N",
        help="also score so many, half as many styled",
    )
    add("--switches", type=int, default=8, metavar="N", help="prompts that change, of each kind")
    add("--frames-before", type=int, default=48, metavar="N")
    add("--frames-after", type=int, default=64, metavar="N")
    add("--drift-streams", type=int, default=4, metavar="N")
    add("--drift-frames", type=int, default=300, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
