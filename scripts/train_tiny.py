"""Train the tiny model: transform, pool, DiT, decoder, distillation, export; each stage resumable.

    python scripts/train_tiny.py --folder runs/tiny --pictures runs/pictures --world small

makes the shipped weights from nothing but the seed. Every stage continues where it was interrupted
and is skipped once its file is there; `--stages dit` runs one alone.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from streamgen.models.tiny.codec import LATENT_CHANNELS
from streamgen.models.tiny.text import Vocabulary
from tiny_training import dit_stage, model, pool, transform_stage
from tiny_world import FULL, SMALL, VOCABULARY, World

STAGES = ("transform", "pool", "dit")


@dataclass(frozen=True, slots=True)
class Size:
    """What a run of one size trains, and for how long."""

    world: World
    sizes: model.Sizes
    num_clips: int
    dit: dit_stage.Plan


SIZES = {
    "small": Size(
        world=SMALL,
        sizes=model.SMALL,
        num_clips=6000,
        dit=dit_stage.Plan(
            seconds=4900,
            image_share=0.15,
            self_forced_share=0.35,
            image_batch=256,
            window_batch=60,
            seed=0,
        ),
    ),
    "full": Size(
        world=FULL,
        sizes=model.FULL,
        num_clips=60_000,
        dit=dit_stage.Plan(
            seconds=900,
            image_share=0.15,
            self_forced_share=0.35,
            image_batch=2048,
            window_batch=256,
            seed=0,
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints, logs, weights")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of real pictures")
    parser.add_argument("--world", choices=sorted(SIZES), default="small")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="of the DiT stage, instead of its default")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Run the chosen stages in order."""
    size, folder = SIZES[arguments.world], arguments.folder
    codec_path = folder / "transform.pt"
    if "transform" in arguments.stages and not codec_path.exists():
        transform_stage.fit_transform(
            codec_path, size.world, pictures=arguments.pictures, seed=arguments.seed
        )
    if "pool" in arguments.stages:
        codec = transform_stage.load_codec(codec_path)
        pool.fill_pool(
            folder / "pool",
            codec,
            size.world,
            pictures=arguments.pictures,
            num_clips=size.num_clips,
            seed=arguments.seed,
        )
    if "dit" in arguments.stages:
        clips = pool.LatentPool(folder / "pool")
        clips.refresh()
        plan = size.dit
        if arguments.seconds is not None:
            plan = dit_stage.with_seconds(plan, arguments.seconds)
        dit_stage.train_dit(
            folder,
            clips,
            Vocabulary(VOCABULARY),
            sizes=size.sizes,
            latent_channels=LATENT_CHANNELS,
            plan=plan,
        )


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    main()
