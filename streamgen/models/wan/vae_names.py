"""The two namings of the Wan VAE's weights, and which one a state dict has.

Original: Wan2.1_VAE.pth and its copies (https://github.com/Wan-Video/Wan2.1, wan/modules/vae.py).
diffusers: the `vae` folder of a diffusers layout; this is what the modules are called here, too.
Knows names and shapes only; opens no file and needs no diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.tensor_check import check_tensors

MISFIT = (
    "the file is no VAE of Wan 2.1 (Wan2.1_VAE.pth), or another version of it"
    " (Wan 2.2 has 48 latent channels, pruned ones have fewer features)"
)

_RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
_HEAD = {"0": "norm_out", "2": "conv_out"}


def match_vae_tensors(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, torch.Size],
    *,
    num_res_blocks: int,
    source: str,
) -> dict[str, Tensor]:
    """The tensors under diffusers' names, whichever naming they came in; strict.

    `expected` are the shapes that the model needs, under diffusers' names. Raises CheckpointError,
    naming `source` and the tensor's name there, if the naming is neither of the two, or a tensor is
    missing, unexpected or misshaped.
    """
    if "encoder.conv_in.weight" in tensors:
        check_tensors(tensors, expected, source=source, cause=MISFIT)
        return dict(tensors)
    if "encoder.conv1.weight" not in tensors:
        raise CheckpointError(
            f"{source}: neither encoder.conv1.weight (as in Wan2.1_VAE.pth) nor"
            f" encoder.conv_in.weight (diffusers' layout) is there; {_guess(tensors)}"
        )
    renamed: dict[str, Tensor] = {}
    original_names: dict[str, str] = {}
    for original, tensor in tensors.items():
        name = diffusers_name(original, num_res_blocks=num_res_blocks)
        if name is None:
            raise CheckpointError(f"{source}: {original} is unexpected; {MISFIT}")
        renamed[name] = tensor
        original_names[name] = original
    for name in expected.keys() - renamed.keys():
        original_names[name] = original_name(name, num_res_blocks=num_res_blocks)
    check_tensors(renamed, expected, source=source, cause=MISFIT, shown_names=original_names)
    return renamed


def diffusers_name(original: str, *, num_res_blocks: int) -> str | None:
    """diffusers' name of a tensor of the original checkpoint; None if that has no such tensor."""
    part, _, rest = original.partition(".")
    if part == "conv1":
        return f"quant_conv.{rest}"
    if part == "conv2":
        return f"post_quant_conv.{rest}"
    if part not in ("encoder", "decoder"):
        return None
    place, _, rest = rest.partition(".")
    if place == "conv1":
        return f"{part}.conv_in.{rest}"
    index, _, leaf = rest.partition(".")
    if place == "head" and index in _HEAD:
        return f"{part}.{_HEAD[index]}.{leaf}"
    if place == "middle" and index == "1":
        return f"{part}.mid_block.attentions.0.{leaf}"
    if place == "middle" and index in ("0", "2"):
        return _joined(f"{part}.mid_block.resnets.{int(index) // 2}", _block_leaf(leaf))
    if place == "downsamples" and part == "encoder":
        return _joined(f"encoder.down_blocks.{index}", _block_leaf(leaf))
    if place == "upsamples" and part == "decoder" and index.isdecimal():
        block, position = divmod(int(index), num_res_blocks + 2)
        inside = f"resnets.{position}" if position <= num_res_blocks else "upsamplers.0"
        return _joined(f"decoder.up_blocks.{block}.{inside}", _block_leaf(leaf))
    return None


def original_name(diffusers: str, *, num_res_blocks: int) -> str:
    """The original checkpoint's name of one of diffusers' tensors: undoes `diffusers_name`."""
    stride = num_res_blocks + 2

    def upsample(match: re.Match[str]) -> str:
        block, inside, position = int(match[1]), match[2], int(match[3])
        offset = position if inside == "resnets" else stride - 1
        return f"upsamples.{block * stride + offset}."

    name = re.sub(r"^quant_conv\.", "conv1.", diffusers)
    name = re.sub(r"^post_quant_conv\.", "conv2.", name)
    name = name.replace(".conv_in.", ".conv1.").replace(".conv_shortcut.", ".shortcut.")
    for index, module in _HEAD.items():
        name = name.replace(f".{module}.", f".head.{index}.")
    for index, module in _RESIDUAL.items():
        name = re.sub(
            rf"((?:resnets|down_blocks)\.\d+)\.{module}\.", rf"\1.residual.{index}.", name
        )
    name = name.replace("mid_block.attentions.0.", "middle.1.")
    name = re.sub(r"mid_block\.resnets\.(\d+)\.", lambda m: f"middle.{2 * int(m[1])}.", name)
    name = re.sub(r"up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.", upsample, name)
    return name.replace("down_blocks.", "downsamples.")


def _block_leaf(leaf: str) -> str | None:
    """Inside a residual or a resampling block."""
    head, _, rest = leaf.partition(".")
    if head == "residual":
        index, _, last = rest.partition(".")
        return f"{_RESIDUAL[index]}.{last}" if index in _RESIDUAL else None
    if head == "shortcut":
        return f"conv_shortcut.{rest}"
    return leaf if head in ("resample", "time_conv") else None


def _joined(block: str, leaf: str | None) -> str | None:
    return None if leaf is None else f"{block}.{leaf}"


def _guess(tensors: Mapping[str, Tensor]) -> str:
    """What a file that is no Wan VAE looks like."""
    if "encoder.0.weight" in tensors or "decoder.1.weight" in tensors:
        return "it looks like a tiny autoencoder (TAEHV, taew2_1.pth)"
    if any(name.removeprefix("model.").startswith("blocks.") for name in tensors):
        return "it looks like a diffusion transformer"
    first = next(iter(sorted(tensors)), None)
    return "it holds no tensors" if first is None else f"its first tensor is {first}"
