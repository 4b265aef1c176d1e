"""Codecs from files: the published .pth and .safetensors, or the folder of a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.checkpoint_kinds import Kind, kind_of
from streamgen.models.loading import finite_copy
from streamgen.models.wan.tae import TAEW_21, TaeCodec, TaeConfig, load_tae
from streamgen.models.wan.vae import WanVae, load_vae
from streamgen.models.wan.vae_config import WAN_21_VAE, LatentNorm, VaeConfig
from streamgen.models.weights_file import WeightsFile, open_weights

Shapes = Mapping[str, tuple[int, ...]]
TAE_DECODER_CONVS = (1, 8, 14, 20)  # layers of the decoder that change its width
VAE_PLACES = ("Wan2.1_VAE.pth", "vae")  # in the published folder, in diffusers' layout


def load_vae_file(
    path: Path | str,
    *,
    norm: LatentNorm,
    device: torch.device,
    dtype: torch.dtype,
    config: VaeConfig | None = None,
) -> WanVae:
    """The Wan VAE of a file in either naming, or of a folder that holds a whole model.

    Without a config, the file tells its width (pruned copies are narrower than 96). Raises
    CheckpointError, naming file, key and cause, if it cannot be used; ConfigError if diffusers is
    not installed.
    """
    source, tensors = _read(
        _vae_place(Path(path).expanduser()), Kind.VAE, device=device, dtype=dtype
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return load_vae(
        tensors,
        source=source,
        config=config or vae_config_of(shapes),
        norm=norm,
        device=device,
        dtype=dtype,
    )


def load_tae_file(
    path: Path | str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    config: TaeConfig | None = None,
) -> TaeCodec:
    """The tiny autoencoder of a file; CheckpointError, naming file, key and cause, otherwise.

    Without a config, the file tells its widths.
    """
    source, tensors = _read(Path(path).expanduser(), Kind.TAE, device=device, dtype=dtype)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    chosen = config or tae_config_of(shapes)
    return load_tae(tensors, source=source, config=chosen, device=device, dtype=dtype)


def open_codec(path: Path | str) -> WeightsFile:
    """The file of a codec of either kind, or the VAE's in a folder of a whole model."""
    return open_weights(_vae_place(Path(path).expanduser()))


def _vae_place(path: Path) -> Path:
    if not path.is_dir():
        return path
    return next((path / name for name in VAE_PLACES if (path / name).exists()), path)


def vae_config_of(shapes: Shapes) -> VaeConfig:
    """Sizes that a VAE's shapes tell; the published ones where they tell nothing."""
    for name in ("encoder.conv1.weight", "encoder.conv_in.weight"):
        if len(shape := shapes.get(name, ())) == 5 and shape[0]:
            return replace(WAN_21_VAE, base_dim=shape[0])
    return WAN_21_VAE


def tae_config_of(shapes: Shapes) -> TaeConfig:
    """Sizes that a tiny autoencoder's shapes tell; the published ones where they tell nothing."""
    names = ("encoder.0.weight", *(f"decoder.{layer}.weight" for layer in TAE_DECODER_CONVS))
    widths = [shape[0] for name in names if len(shape := shapes.get(name, ())) == 4]
    if len(widths) != len(names) or not all(widths):
        return TAEW_21
    encoder, first, second, third, last = widths
    return replace(TAEW_21, encoder_width=encoder, decoder_widths=(first, second, third, last))


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
