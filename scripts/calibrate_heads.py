"""Find the heads of a model that hardly look back, and write them to a file for `speed.heads`.

    python scripts/calibrate_heads.py --preset tiny-cpu --share 0.25 --out heads.json
    streamgen run "a red fox in deep snow" --preset self-forcing-1.3b --set speed.heads=heads.json

Plays the preset on some prompts, measures in every block, step and full window which share of its
attention each head gives to the chunk that it is computed for, and takes the heads that give most:
offline what Dummy Forcing (Guo et al. 2026, arXiv:2601.20499) does while it runs. Only for models
that start from noise. How many may be taken without harm is for the eye to say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamgen.cache.heads import HeadMeter
from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.rows import RowPool
from streamgen.clock import MonotonicClock
from streamgen.diffusion.noise import SeededNoise
from streamgen.engine.engine import Engine
from streamgen.engine.executor import LocalExecutor
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage
from streamgen.engine.start import NoiseStarter
from streamgen.metrics.export import Metrics
from streamgen.models.heads import choose_present, write_heads
from streamgen.scheduling.policy import Sequential
from streamgen.serving.build import Pipeline, build_pipeline, load_config

PROMPTS = (
    "a red ball bouncing over a green field at night",
    "a blue star swinging over the sea at sunset",
    "a yellow square drifting over a snowy mountain",
    "a green triangle spinning in a city by day",
)


def calibrate(pipeline: Pipeline, prompts: list[str], num_chunks: int) -> HeadMeter:
    """Play `num_chunks` chunks of each prompt, and watch."""
    recipe, facts, backend = pipeline.recipe, pipeline.bundle.dit.facts, pipeline.backend
    num_cells = recipe.sinks + recipe.ring
    meter = HeadMeter(num_layers=facts.num_blocks, num_heads=facts.num_heads, num_cells=num_cells)
    geometry, clock = pipeline.geometry, MonotonicClock()
    grid = pipeline.bundle.dit.grid(geometry.latent_height, geometry.latent_width)
    shape = CacheShape(
        facts.num_blocks, recipe.num_cache_rows, num_cells, facts.num_heads, facts.head_dim, grid
    )
    cache = KVCache(
        shape,
        recipe.positions,
        device=backend.device,
        dtype=backend.dtype,
        operations=backend.operations,
        moves_sinks=recipe.cache.moves_sinks,
        meter=meter,
    )
    engine = Engine(
        LocalExecutor(
            Stage(pipeline.bundle.dit, cache, device=backend.device),
            DenoiseSlots(facts, pipeline.noise),
            pipeline.lanes,
        ),
        Sequential(),
        rows=RowPool(recipe.num_cache_rows),
        max_rows=recipe.max_pass_rows,
        clock=clock,
        metrics=Metrics(clock),
    )
    for seed, prompt in enumerate(prompts):
        features = engine.add_prompt(pipeline.bundle.text.encode(prompt))
        starter = NoiseStarter(recipe, geometry, pipeline.noise, seed=seed, max_chunks=num_chunks)
        session = engine.open(
            recipe,
            make_starter=lambda starter=starter: starter,
            decoder=pipeline.new_decoder(),
            seed=seed,
            prompt=features,
            negative_prompt=features,
            max_waiting_clips=num_chunks,
        )
        while not session.has_ended:
            engine.tick()
        engine.close(session)
    return meter


def main() -> int:
    options = _parser().parse_args()
    config = load_config(options.preset, options.overrides)
    if config.speed.heads:
        print("speed.heads is set already; leave it out to find the heads", file=sys.stderr)
        return 2
    pipeline = build_pipeline(config, clock=MonotonicClock(), noise=SeededNoise())
    prompts: list[str] = options.prompts or [*PROMPTS]
    shares = calibrate(pipeline, prompts, options.chunks).shares()
    heads = choose_present(shares, options.share)
    facts = {
        "preset": str(options.preset),
        "settings": options.overrides,
        "prompts": prompts,
        "chunks": options.chunks,
        "share": options.share,
        "attention_inside_the_chunk": [[round(x, 3) for x in row] for row in shares.tolist()],
    }
    write_heads(options.out, heads, facts)
    for block, (row, present) in enumerate(zip(shares.tolist(), heads.by_block, strict=True)):
        print(f"block {block}: {' '.join(f'{x:.2f}' for x in row)}   own chunk only: {[*present]}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", default="tiny-cpu", metavar="NAME", help="or a .toml file")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    add("--prompts", nargs="+", metavar="TEXT", help="what to play; some of the tiny model's")
    add("--chunks", type=int, default=10, metavar="N", help="of each prompt")
    add("--share", type=float, default=0.25, metavar="X", help="of all heads, to be taken")
    add("--out", type=Path, required=True, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
