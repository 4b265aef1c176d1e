"""Measure the tiny model's speed and memory on this machine; prints a table, writes a JSON file.

    python scripts/bench_tiny.py
    python scripts/bench_tiny.py --frames 16 --repeats 2 --memory-frames 200 --cold 1   # a trial

Frames a second are end to end, from `Stream` to pixels in memory: prompt, noise, DiT, decoder, and
for video to video the source and the encoder. Nothing is asserted: these are facts of one machine,
which was perhaps busy with something else (see `load_average_before`).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent))

from streamgen.clock import MonotonicClock
from streamgen.errors import StreamGenError
from streamgen.serving.bench.machine import machine_facts, spread
from streamgen.serving.bench.measure import Case, first_frames_cold_s
from tiny_scores import speed
from tiny_scores.results import Facts
from tiny_scores.streams import TEXT_PRESET, TIMESTEPS, VIDEO_PRESET, Setup, ladder_override
from tiny_scores.tables import aligned

PRESETS = {"text-to-video": TEXT_PRESET, "video-to-video": VIDEO_PRESET}
WARM_UP_FRAMES = 24

logger = logging.getLogger("bench_tiny")


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("streamgen").setLevel(logging.WARNING)
    cv2.setNumThreads(1)
    try:
        found = measure(options)
    except StreamGenError as error:
        print(f"bench_tiny: {error}", file=sys.stderr)
        return error.exit_code
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(aligned(_rows(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--weights", default="package", metavar="FILE", help="instead of the package's")
    add("--out", type=Path, default=Path("benchmarks/tiny-cpu-speed.json"), metavar="FILE")
    add("--steps", type=int, nargs="+", choices=sorted(TIMESTEPS), default=(4, 2, 1))
    add("--streams", type=int, nargs="+", default=(1, 2, 4), metavar="N", help="at once")
    add("--frames", type=int, default=100, metavar="N", help="of a repeat, of each stream")
    add("--repeats", type=int, default=5, metavar="N")
    add("--cold", type=int, default=3, metavar="N", help="starts of the program")
    add("--memory-frames", type=int, default=5000, metavar="N", help="0 leaves it out")
    add("--threads", type=int, default=0, metavar="N", help="of torch; 0: one a core")
    add("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="a setting of both presets; may be given again")  # fmt: skip
    return parser


def measure(options: argparse.Namespace) -> Facts:
    overrides = (f"model.num_threads={options.threads}", *options.overrides)
    setup = Setup(options.weights, overrides, sessions=max(options.streams))
    with setup.host(TEXT_PRESET) as host:  # sets torch's threads, which are among the facts
        machine = machine_facts(host.pipeline.backend)
    found: Facts = {
        "hardware": machine,
        "weights_sha256": setup.fingerprint(),
        "overrides": list(overrides),
        "frames_a_repeat": options.frames,
    }
    for task, preset in PRESETS.items():
        found[task] = _task(options, setup, preset)
        logger.info("%s: speed done", task)
    cold = Case("cold", TEXT_PRESET, (*overrides, *setup.weights_override()))
    cold_s = first_frames_cold_s(cold, options.cold, MonotonicClock())
    found["first_frame_cold_s"] = spread(cold_s)
    if options.memory_frames:
        for task, preset in PRESETS.items():
            with setup.host(preset) as host:
                found[f"{task} memory"] = speed.memory(host, num_frames=options.memory_frames)
            logger.info("%s: memory done", task)
    return found


def _task(options: argparse.Namespace, setup: Setup, preset: str) -> Facts:
    """Speed by number of steps, by number of streams (with the preset's steps), and by part."""
    by_steps: Facts = {}
    for num_steps in options.steps:
        with setup.host(preset, ladder_override(num_steps)) as host:
            by_steps[str(num_steps)] = spread(_rates(options, host, num_streams=1))
    by_streams: Facts = {}
    for num_streams in options.streams:
        with setup.host(preset) as host:
            rates = _rates(options, host, num_streams=num_streams)
            by_streams[str(num_streams)] = spread(rates)
    with setup.host(preset) as host:
        waits_s = speed.first_frame_warm_s(host, repeats=options.repeats)
    with setup.host(preset) as host:
        _rates(options, host, num_streams=1)
        parts = speed.part_times(host, repeats=4 * options.repeats)
    return {
        "frames_per_second_by_steps": by_steps,
        "frames_per_second_by_streams": by_streams,
        "first_frame_warm_s": spread(waits_s, digits=4),
        "parts": parts,
    }


def _rates(options: argparse.Namespace, host: speed.Host, *, num_streams: int) -> Sequence[float]:
    return speed.frames_per_second(
        host,
        num_streams=num_streams,
        num_frames=options.frames,
        repeats=options.repeats,
        warm_up=WARM_UP_FRAMES,
    )


def _rows(found: Facts, path: str = "") -> list[list[str]]:
    """Every number with its place; a spread or percentiles take one line."""
    rows: list[list[str]] = []
    for name, value in found.items():
        where = f"{path} / {name}" if path else name
        if not isinstance(value, dict):
            rows.append([where, str(value)])
        elif any(isinstance(inner, dict) for inner in value.values()):
            rows += _rows(value, where)
        elif "repeats" in value or "count" in value:
            rows.append([where, ", ".join(f"{key} {inner}" for key, inner in value.items())])
        else:
            rows += _rows(value, where)
    return rows


if __name__ == "__main__":
    sys.exit(main())
