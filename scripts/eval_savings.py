"""What memory and work that are saved cost in pictures: each setting beside the preset, in turns.

    python scripts/eval_savings.py --streams 4 --frames 240
    python scripts/eval_savings.py --settings "kv int8" "clean 0"

The same prompts and seeds are played with the setting and without it, a few pictures of each in
turn, so that a busy machine slows both alike. PSNR says how far the pictures are from those of the
preset, at the start and at the end; a stream that goes another way is not a worse one, so the
scores of scripts/eval_tiny.py on the last pictures stand beside it, for both. Speed is the median
ratio of a turn, with its quartiles; fewer than 1 is slower. On four steps, which work is saved on.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent))

from streamgen.clock import MonotonicClock
from streamgen.metrics.json_value import Json
from streamgen.ops.quantise import KVFormat
from streamgen.serving.host import Host
from streamgen.types import Pixels
from tiny_scores.attributes import SCORED_FRAMES, see
from tiny_scores.prompts import CONTENT, HELD_OUT_SEED, WORLDS, Prompt, held_out_prompts
from tiny_scores.results import Facts, Results
from tiny_scores.shares import agreement, shares_json
from tiny_scores.streams import TEXT_PRESET, Order, Setup, ladder_override, play
from tiny_world.scene import World

SETTINGS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "kv fp8": ("cache.dtype=fp8",),
    "kv int8": ("cache.dtype=int8",),
    "kv int4": ("cache.dtype=int4",),
    "linears fp8": ("speed.linears=fp8",),
    "linears int8": ("speed.linears=int8",),
    "kv int8, linears int8": ("cache.dtype=int8", "speed.linears=int8"),
    "clean 0.5": ("speed.clean_share=0.5",),
    "clean 0": ("speed.clean_share=0",),
    "reuse 1 of 4": ("speed.reuse_steps=[2]", "speed.reuse_blocks=[1,4]"),
    "reuse 2 of 4": ("speed.reuse_steps=[1,3]", "speed.reuse_blocks=[1,4]"),
    "heads": ("speed.heads=package",),
    "heads, reuse 1, clean 0.5": (
        "speed.heads=package", "speed.reuse_steps=[2]", "speed.reuse_blocks=[1,4]",
        "speed.clean_share=0.5",
    ),
}  # fmt: skip
STEPS = 4
TURN_FRAMES = 8  # of each stream
WINDOW_FRAMES = 16  # that a PSNR is of
EQUAL_DB = 99.0  # what equal pictures are said to have

logger = logging.getLogger("eval_savings")


class Player:
    """Plays all prompts on one host, a turn at a time; owns their pictures."""

    def __init__(self, host: Host, prompts: Sequence[Prompt], num_frames: int) -> None:
        orders = [Order(prompt.text, prompt.seed) for prompt in prompts]
        self._playing = play(host, orders, num_frames=num_frames)
        self._clock = MonotonicClock()
        self._frames: list[list[Pixels]] = [[] for _ in prompts]

    def turn(self) -> float:
        """Seconds of the next pictures of every stream."""
        began_s = self._clock.now()
        for _ in range(TURN_FRAMES * len(self._frames)):
            index, pixels = next(self._playing)
            self._frames[index].append(pixels.copy())
        return self._clock.now() - began_s

    def clips(self) -> list[Pixels]:
        return [np.stack(frames) for frames in self._frames]

    def close(self) -> None:
        self._playing.close()  # pyright: ignore[reportAttributeAccessIssue]  # it is a generator


def measure(
    setup: Setup,
    settings: tuple[str, ...],
    prompts: Sequence[Prompt],
    num_frames: int,
    world: World,
) -> Facts:
    """One setting beside none."""
    ladder = ladder_override(STEPS)
    with (
        setup.host(TEXT_PRESET, ladder) as plain,
        setup.host(TEXT_PRESET, ladder, *settings) as saving,
    ):
        players = [Player(host, prompts, num_frames) for host in (plain, saving)]
        ratios: list[float] = []
        for turn in range(num_frames // TURN_FRAMES):
            order = players if turn % 2 == 0 else players[::-1]
            seconds = {id(player): player.turn() for player in order}
            ratios.append(seconds[id(players[0])] / seconds[id(players[1])])
        for player in players:
            player.close()
        kept = cache_bytes(saving), cache_bytes(plain)
    expected, found = (player.clips() for player in players)
    wanted = [prompt.attributes for prompt in prompts]
    quartiles = statistics.quantiles(ratios[1:], n=4)
    middle = num_frames // 2
    return {
        "overrides": [*settings],
        "speed": {
            "ratio": round(quartiles[1], 3),
            "quartiles": [round(quartiles[0], 3), round(quartiles[2], 3)],
        },
        "cache": {"bytes": kept[0], "of": kept[1], "share": round(kept[0] / kept[1], 3)},
        "psnr_db": {
            name: round(statistics.median(psnr_db(one[where], other[where])
                                          for one, other in zip(found, expected, strict=True)), 1)
            for name, where in (
                ("first", slice(0, WINDOW_FRAMES)),
                ("middle", slice(middle, middle + WINDOW_FRAMES)),
                ("last", slice(num_frames - WINDOW_FRAMES, num_frames)),
            )
        },
        "late": {
            name: {
                "frames": [num_frames - SCORED_FRAMES, num_frames],
                "prompt": shares_json(
                    agreement(wanted, [see(c[-SCORED_FRAMES:], world) for c in clips], CONTENT)
                ),
                "sharpness": round(float(np.mean([sharpness(clip[-1]) for clip in clips])), 2),
            }
            for name, clips in (("with", found), ("without", expected))
        },
    }  # fmt: skip


def psnr_db(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Of all pictures of a window together."""
    error = float(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2))
    return min(EQUAL_DB, 10 * float(np.log10(255**2 / error))) if error else EQUAL_DB


def sharpness(frame: Pixels) -> float:
    """Mean magnitude of the picture's gradient."""
    grey = frame.astype(np.float32).mean(-1)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def cache_bytes(host: Host) -> int:
    """Of keys, values and scales of all sessions, in float32 where nothing is quantised."""
    pipeline = host.pipeline
    config, recipe, facts = pipeline.config, pipeline.recipe, pipeline.bundle.dit.facts
    size = pipeline.geometry
    grid = pipeline.bundle.dit.grid(size.latent_height, size.latent_width)
    cells = recipe.num_cache_rows * config.engine.sessions * (recipe.sinks + recipe.ring)
    heads = 2 * facts.num_blocks * cells * grid.num_tokens * facts.num_heads
    kind = KVFormat(config.cache.dtype)
    return heads * kind.bytes_a_head(facts.head_dim, pipeline.backend.dtype.itemsize)


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("streamgen").setLevel(logging.WARNING)
    cv2.setNumThreads(1)
    world = WORLDS["small"]
    prompts = held_out_prompts(world, options.streams, style=False)
    setup = Setup("package", (), options.streams)
    facts: dict[str, Json] = {
        "weights_sha256": setup.fingerprint(),
        "held_out_seed": HELD_OUT_SEED,
        "steps": STEPS,
        "streams": options.streams,
        "frames": options.frames,
        "hardware": options.hardware,
    }
    results = Results(options.out, facts)
    for name in options.settings:
        began_s = time.perf_counter()
        found = measure(setup, SETTINGS[name], prompts, options.frames, world)
        found["commit"] = options.commit
        results.put("savings", name, found)
        logger.info("%s took %.0f s", name, time.perf_counter() - began_s)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("benchmarks/tiny-savings.json"), metavar="FILE")
    add("--settings", nargs="+", choices=sorted(SETTINGS), default=tuple(SETTINGS), metavar="NAME")
    add("--streams", type=int, default=4, metavar="N")
    add("--frames", type=int, default=240, metavar="N", help="of each stream")
    add("--hardware", default="2 CPU cores", help="to be written down")
    add("--commit", default="", help="to be written down")
    return parser


if __name__ == "__main__":
    sys.exit(main())
