"""Which files a pipeline is made of, and where they are on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamgen.config.model_files import WanFilesConfig
from streamgen.config.schema import ModelConfig
from streamgen.errors import CheckpointError
from streamgen.models.hub import HubFile, cached, download, files_of, find, is_reference
from streamgen.models.loading import describe
from streamgen.models.wan.bundle import CodecKind, WanFiles
from streamgen.models.wan.codec_files import open_codec, tae_config_of, vae_config_of
from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.sizes import PUBLISHED
from streamgen.models.wan.tae import TAEW_21, TaeConfig
from streamgen.models.wan.text import TextPlace, check_text_encoder, open_text_weights
from streamgen.models.wan.text_names import UMT5_XXL
from streamgen.models.wan.vae_config import WAN_21_VAE, LatentNorm, VaeConfig

__all__ = ["download", "is_here", "references", "to_download", "wan_files", "wan_parts"]

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


def to_download(model: ModelConfig, wan: WanFilesConfig) -> tuple[HubFile, ...]:
    """Every file of the hub that these settings read, each once; paths are left out."""
    named = [text for _, text in references(model, wan) if is_reference(text)]
    return tuple(dict.fromkeys(file for text in named for file in files_of(text)))


def is_here(model: ModelConfig, wan: WanFilesConfig) -> bool:
    """Whether every file that these settings read is on this machine."""
    return all(
        all(cached(file) for file in files_of(text))
        if is_reference(text)
        else Path(text).expanduser().exists()
        for _, text in references(model, wan)
    )


@dataclass(frozen=True, slots=True)
class WanParts:
    """Sizes of a model's parts, for estimates."""

    dit: WanConfig
    vae: VaeConfig
    tae: TaeConfig
    text_bytes: int
    text_layer_bytes: int
    """What is on the GPU at a time where the encoder rests on the host."""
    lora_bytes: int
    """0 if there are none."""


def wan_parts(model: ModelConfig, wan: WanFilesConfig) -> WanParts:
    """Sizes of the parts: published ones, or what the files say where wan.size is "any".

    Raises CheckpointError for a file that must be read for it and cannot be.
    """
    lora_bytes = sum(_lora_bytes(lora.weights) for lora in wan.loras)
    if wan.size != "any":
        text_bytes = UMT5_XXL.num_params * 2
        layer_bytes = text_bytes // UMT5_XXL.num_layers
        dit = PUBLISHED[wan.size]
        return WanParts(dit, WAN_21_VAE, TAEW_21, text_bytes, layer_bytes, lora_bytes)
    path = _found("model.weights", model.weights)
    dit = describe(path, wrapper=wan.state_dict or None).config
    if dit is None:
        raise CheckpointError(
            f"{path}: is not a Wan diffusion transformer of head dim 128; set model.weights to one"
        )
    codec = open_codec(_found(codec_key(wan), dict(references(model, wan))[codec_key(wan)]))
    shapes = {name: stored.shape for name, stored in codec.tensors.items()}
    text = open_text_weights(_found("wan.text_weights", wan.text_weights))
    return WanParts(
        dit=dit,
        vae=vae_config_of(shapes),
        tae=tae_config_of(shapes),
        text_bytes=text.size_bytes,
        text_layer_bytes=text.size_bytes // check_text_encoder(text).num_layers,
        lora_bytes=lora_bytes,
    )


def _lora_bytes(named: str) -> int:
    """Of a file that is here; at least 1, for the unmerged weights are kept whatever its size."""
    path = cached(files_of(named)[0]) if is_reference(named) else Path(named).expanduser()
    return max(path.stat().st_size, 1) if path is not None and path.is_file() else 1


def _found(key: str, named: str) -> Path:
    return find(named, remedy=REMEDY.format(key=key))
