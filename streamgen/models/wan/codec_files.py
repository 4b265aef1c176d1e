"""Codecs from files: the published .pth and .safetensors, or the folder of a whole model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.checkpoint_kinds import Kind, kind_of
from streamgen.models.loading import finite_copy
from streamgen.models.wan.tae import TAEW_21, TaeCodec, TaeConfig, load_tae
from streamgen.models.wan.vae import WanVae, load_vae
from streamgen.models.wan.vae_config import WAN_21_VAE, LatentNorm, VaeConfig
from streamgen.models.weights_file import open_weights

VAE_PLACES = ("Wan2.1_VAE.pth", "vae")  # in the published folder, in diffusers' layout


def load_vae_file(
    path: Path | str,
    *,
    norm: LatentNorm,
    device: torch.device,
    dtype: torch.dtype,
    config: VaeConfig = WAN_21_VAE,
) -> WanVae:
    """The Wan VAE of a file in either naming, or of a folder that holds a whole model.

    Raises CheckpointError, naming file, key and cause, if it cannot be used; ConfigError if
    diffusers is not installed.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        place = next((place / name for name in VAE_PLACES if (place / name).exists()), place)
    source, tensors = _read(place, Kind.VAE, device=device, dtype=dtype)
    return load_vae(tensors, source=source, config=config, norm=norm, device=device, dtype=dtype)


def load_tae_file(
    path: Path | str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    config: TaeConfig = TAEW_21,
) -> TaeCodec:
    """The tiny autoencoder of a file; CheckpointError, naming file, key and cause, otherwise."""
    source, tensors = _read(Path(path), Kind.TAE, device=device, dtype=dtype)
    return load_tae(tensors, source=source, config=config, device=device, dtype=dtype)


def _read(
    path: Path, wanted: Kind, *, device: torch.device, dtype: torch.dtype
) -> tuple[str, dict[str, Tensor]]:
    """The file that was found, and its tensors in their place."""
    file = open_weights(path)
    kind = kind_of(file.tensors)
    if kind is not wanted:
        called = "of unknown contents" if kind is Kind.UNKNOWN else f"a {kind.value}"
        raise CheckpointError(
            f"{file.path}: is not a {wanted.value} but {called}; set the path of the codec's own"
            f" weights"
        )
    names = list(file.tensors)
    file.require_floating(names)
    tensors = {
        key: finite_copy(stored, device=device, dtype=dtype, file=file, key=key)
        for key, stored in file.read(names)
    }
    return str(file.path), tensors
