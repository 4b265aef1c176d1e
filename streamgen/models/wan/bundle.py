"""A Wan model from its published files: DiT, codec, text encoder, LoRAs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch

from streamgen.models.bundle import ModelBundle
from streamgen.models.loading import load_dit
from streamgen.models.wan.codec_files import load_tae_file, load_vae_file
from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.lora import LoraSet
from streamgen.models.wan.lora_file import read_lora
from streamgen.models.wan.tae import TaeCodec
from streamgen.models.wan.text import TextPlace, load_text_encoder
from streamgen.models.wan.vae import WanVae
from streamgen.models.wan.vae_config import LatentNorm

KNOWLEDGE = "draws whatever you describe; long, detailed prompts give the best pictures"


class CodecKind(Enum):
    """Which autoencoder turns latents into pictures."""

    VAE = "vae"
    TAEHV = "taehv"


@dataclass(frozen=True, slots=True)
class WanFiles:
    """Where the parts of one model are, and how they are read."""

    dit: Path
    state_dict: str | None
    """Which state dict of a training checkpoint; None for the first published one."""
    config: WanConfig | None
    """What the DiT must be; None: what its file says."""
    codec: CodecKind
    codec_weights: Path
    latent_norm: LatentNorm
    text: Path
    tokenizer: Path | None
    text_place: TextPlace
    loras: Mapping[str, Path]
    lora_scales: Mapping[str, float]


def load_wan(
    files: WanFiles,
    *,
    device: torch.device,
    dtype: torch.dtype,
    blocks: range | None = None,
    dit_device: torch.device | None = None,
) -> ModelBundle:
    """Load all parts, the small ones first, so that what is missing shows early.

    `blocks` are those that the DiT is to have here; None: all. `dit_device` is where it is put for
    now, if not on `device`.

    Raises CheckpointError, naming file and key, if a part is unusable; ConfigError if a package is
    not installed.
    """
    codec = _codec(files, device, dtype)
    text = load_text_encoder(
        files.text, files.tokenizer, place=files.text_place, device=device, dtype=dtype
    )
    dit, lora_set = load_wan_dit(files, device=dit_device or device, dtype=dtype, blocks=blocks)
    return ModelBundle(dit=dit, codec=codec, text=text, knowledge=KNOWLEDGE, loras=lora_set)


def load_wan_dit(
    files: WanFiles, *, device: torch.device, dtype: torch.dtype, blocks: range | None
) -> tuple[WanDiT, LoraSet | None]:
    """Load the DiT alone, or some blocks of it, with its LoRAs; raises as `load_wan` does."""
    loras = {name: read_lora(path) for name, path in files.loras.items()}
    dit = load_dit(
        files.dit,
        device=device,
        dtype=dtype,
        blocks=blocks,
        config=files.config,
        wrapper=files.state_dict,
    )
    lora_set = LoraSet(dit, loras) if loras else None
    if lora_set is not None:
        lora_set.apply(files.lora_scales)
    return dit, lora_set


def _codec(files: WanFiles, device: torch.device, dtype: torch.dtype) -> WanVae | TaeCodec:
    if files.codec is CodecKind.TAEHV:
        return load_tae_file(files.codec_weights, device=device, dtype=dtype)
    return load_vae_file(files.codec_weights, norm=files.latent_norm, device=device, dtype=dtype)
