"""Train the tiny model: transform, pool, codec, DiT, decoder, export; each stage can be resumed.

    python scripts/train_tiny.py --folder runs/tiny --pictures runs/pictures --world small

makes weights from nothing but pictures and the seed, in FOLDER/tiny.safetensors. A stage continues
where it was interrupted; `--stages dit` runs one alone. `--world full` is meant for a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from streamgen.models.tiny.codec import LATENT_CHANNELS
from streamgen.models.tiny.text import Vocabulary
from tiny_training import (
    codec_stage,
    decoder_stage,
    dit_stage,
    export_stage,
    model,
    pool,
    start_stage,
    transform_stage,
)
from tiny_world import FULL, SMALL, VOCABULARY, World

logger = logging.getLogger("train_tiny")

CODEC = "codec.safetensors"  # what the decoder stage writes and the export reads
START_RATE = 0.35  # of the learning rates, where training goes on from finished weights
STAGES_OF_START = ("pool", "dit", "export")


@dataclass(frozen=True, slots=True)
class Size:
    """What a run of one size trains, and for how long."""

    world: World
    sizes: model.Sizes
    num_clips: int
    codec_seconds: float
    dit: dit_stage.Plan
    decoder_seconds: float


SIZES = {
    "small": Size(
        world=SMALL,
        sizes=model.SMALL,
        num_clips=6000,
        codec_seconds=1800,
        dit=dit_stage.Plan(
            seconds=4900,
            image_share=0.15,
            self_forced_share=0.35,
            rollout_share=0.35,
            rate=1.0,
            image_batch=256,
            window_batch=84,
            rollout_batch=32,
            seed=0,
        ),
        decoder_seconds=600,
    ),
    "full": Size(
        world=FULL,
        sizes=model.FULL,
        num_clips=60_000,
        codec_seconds=180,
        dit=dit_stage.Plan(
            seconds=900,
            image_share=0.15,
            self_forced_share=0.35,
            rollout_share=0.35,
            rate=1.0,
            image_batch=2048,
            window_batch=256,
            rollout_batch=192,
            seed=0,
        ),
        decoder_seconds=120,
    ),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One run: where, on what, with which seed; `scale` stretches the time of every stage."""

    folder: Path
    pictures: Path
    size: Size
    seed: int
    scale: float
    device: torch.device
    start: Path | None
    """A shipped file to train on from."""

    @property
    def transform(self) -> Path:
        return self.folder / "transform.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny model, stage by stage.")
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints, logs, weights")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of real pictures")
    parser.add_argument("--world", choices=sorted(SIZES), default="small")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the time of every stage")
    parser.add_argument(
        "--start",
        type=Path,
        help="finished weights to train on from, with the same world: their codec stays, "
        "the DiT goes on; of the stages, transform, codec and decoder are left out",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        folder=arguments.folder,
        pictures=arguments.pictures,
        size=SIZES[arguments.world],
        seed=arguments.seed,
        scale=arguments.scale,
        device=torch.device(arguments.device),
        start=arguments.start,
    )
    if job.start is not None:
        start_stage.take_codec(job.start, transform=job.transform, codec=job.folder / CODEC)
    for stage, run in STAGES.items():
        if stage in arguments.stages and (job.start is None or stage in STAGES_OF_START):
            logger.info("stage %s", stage)
            run(job)


def run_transform(job: Job) -> None:
    if not job.transform.exists():
        transform_stage.fit_transform(
            job.transform, job.size.world, pictures=job.pictures, seed=job.seed
        )


def run_pool(job: Job) -> None:
    pool.fill_pool(
        job.folder / "pool",
        transform_stage.load_codec(job.transform),
        job.size.world,
        pictures=job.pictures,
        num_clips=job.size.num_clips,
        seed=job.seed,
    )


def run_codec(job: Job) -> None:
    codec_stage.train_codec(
        job.folder / "codec",
        seconds=job.size.codec_seconds * job.scale,
        seed=job.seed,
        pictures=job.pictures,
        device=job.device,
        encoder_from=job.transform,
    )


def run_dit(job: Job) -> None:
    clips = pool.LatentPool(job.folder / "pool")
    clips.refresh()
    plan = dataclasses.replace(
        job.size.dit, seconds=job.size.dit.seconds * job.scale, seed=job.seed
    )
    if job.start is not None:
        plan = dataclasses.replace(
            plan,
            image_share=0.0,
            self_forced_share=1.0,
            rollout_share=1.0,
            rate=START_RATE,
            image_batch=plan.image_batch // 2,  # roll-outs are what is to be learnt
            window_batch=plan.window_batch // 2,
        )
    dit_stage.train_dit(
        job.folder,
        clips,
        Vocabulary(VOCABULARY),
        sizes=job.size.sizes,
        latent_channels=LATENT_CHANNELS,
        plan=plan,
        device=job.device,
        start=job.start,
    )


def run_decoder(job: Job) -> None:
    decoder_stage.adapt_decoder(
        job.folder,
        job.folder / "codec" / "codec.safetensors",
        world=job.size.world,
        sizes=job.size.sizes,
        vocabulary=Vocabulary(VOCABULARY),
        pictures=job.pictures,
        seconds=job.size.decoder_seconds * job.scale,
        seed=job.seed,
        device=job.device,
    )


def run_export(job: Job) -> None:
    export_stage.export(
        job.folder / "dit.pt",
        job.folder / CODEC,
        job.folder / "tiny.safetensors",
        world=job.size.world,
        sizes=job.size.sizes,
    )


STAGES: dict[str, Callable[[Job], None]] = {
    "transform": run_transform,
    "pool": run_pool,
    "codec": run_codec,
    "dit": run_dit,
    "decoder": run_decoder,
    "export": run_export,
}

if __name__ == "__main__":
    torch.set_flush_denormal(True)
    main()
