"""Which files a pipeline is made of, and where they are on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamgen.config.model_files import WanFilesConfig
from streamgen.config.schema import ModelConfig
from streamgen.models.hub import find
from streamgen.models.wan.bundle import CodecKind, WanFiles
from streamgen.models.wan.sizes import PUBLISHED
from streamgen.models.wan.text import TextPlace
from streamgen.models.wan.vae_config import LatentNorm

REMEDY = "get it with: streamgen models download PRESET, or set {key} to a path"


def references(model: ModelConfig, wan: WanFilesConfig) -> Iterator[tuple[str, str]]:
    """The files that these settings read, as (key, path or reference), large ones last."""
    if wan.tokenizer:
        yield "wan.tokenizer", wan.tokenizer
    yield codec_key(wan), wan.taehv_weights if wan.codec == "taehv" else wan.vae_weights
    for lora in wan.loras:
        yield f"wan.loras ({lora.name})", lora.weights
    yield "model.weights", model.weights
    yield "wan.text_weights", wan.text_weights


def codec_key(wan: WanFilesConfig) -> str:
    """The setting that names the codec's file."""
    return f"wan.{wan.codec}_weights"


def wan_files(model: ModelConfig, wan: WanFilesConfig) -> WanFiles:
    """Where the parts are; CheckpointError if one was not downloaded."""
    found = {key: _found(key, named) for key, named in references(model, wan)}
    return WanFiles(
        dit=found["model.weights"],
        state_dict=wan.state_dict or None,
        config=PUBLISHED.get(wan.size),
        codec=CodecKind(wan.codec),
        codec_weights=found[codec_key(wan)],
        latent_norm=LatentNorm(wan.latent_norm),
        text=found["wan.text_weights"],
        tokenizer=found.get("wan.tokenizer"),
        text_place=TextPlace(wan.text_place),
        loras={lora.name: found[f"wan.loras ({lora.name})"] for lora in wan.loras},
        lora_scales={lora.name: lora.scale for lora in wan.loras},
    )


def _found(key: str, named: str) -> Path:
    return find(named, remedy=REMEDY.format(key=key))
