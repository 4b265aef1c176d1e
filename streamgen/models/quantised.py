"""Linear layers in 8 bits: FP8 weights and activations, or int8 weights alone.

FP8 is our own, on `torch._scaled_mm`: one scale for each token and each output channel, e4m3
(Micikevicius et al. 2022, arXiv:2209.05433). int8 weight-only is torchao's.

Legend: ... any leading axes, I in channels, O out channels.
"""

from __future__ import annotations

import importlib
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from streamgen.errors import ConfigError, install_command
from streamgen.models.base import CausalDiT

FP8_LIMIT = 448.0  # the largest e4m3
SMALLEST_SCALE = 1e-12
MULTIPLE = 16  # channels that the matrix units take at once


class Linears(Enum):
    """How the linear layers of the blocks are stored and multiplied."""

    FULL = "full"
    FP8 = "fp8"
    INT8 = "int8"


def quantise_linears(dit: CausalDiT, kind: Linears) -> int:
    """Replace the linear layers inside the blocks; returns how many.

    Embeddings and the head stay as they are: they are small, and errors there are seen. Raises
    ConfigError where torchao is needed and not installed.
    """
    if kind is Linears.FULL:
        return 0
    if not isinstance(dit, nn.Module) or not hasattr(dit, "blocks"):
        raise ConfigError(f'this model has no linear layers for speed.linears = "{kind.value}"')
    blocks = dit.get_submodule("blocks")
    names = [
        name
        for name, module in blocks.named_modules()
        if isinstance(module, nn.Linear) and _fits(module)
    ]
    if kind is Linears.INT8:
        _quantise_int8(blocks, set(names))
        return len(names)
    for name in names:
        parent_name, _, leaf = name.rpartition(".")
        parent = blocks.get_submodule(parent_name)
        linear = getattr(parent, leaf)
        made = Fp8Linear(linear)
        if isinstance(parent, nn.Sequential):
            parent[int(leaf)] = made
        else:
            setattr(parent, leaf, made)
    return len(names)


class Fp8Linear(nn.Module):
    """A linear layer whose weights and activations are multiplied in FP8, summed in float32."""

    weight_OI: Tensor
    scale_1O: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_OI, scale_O1 = to_fp8(linear.weight.detach())
        self.register_buffer("weight_OI", weight_OI)
        self.register_buffer("scale_1O", scale_O1.t().contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x_I: Tensor) -> Tensor:
        x_TI, scale_T1 = to_fp8(x_I.flatten(0, -2))
        out_TO = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
            x_TI, self.weight_OI.t(), scale_a=scale_T1, scale_b=self.scale_1O,
            out_dtype=torch.bfloat16,
        ).to(x_I.dtype)  # fmt: skip
        if self.bias is not None:
            out_TO = out_TO + self.bias
        return out_TO.unflatten(0, x_I.shape[:-1])


def to_fp8(x_TI: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 codes [T, I] and float32 scales [T, 1], a scale for each row."""
    x32 = x_TI.float()
    scale_T1 = (x32.abs().amax(-1, keepdim=True) / FP8_LIMIT).clamp(min=SMALLEST_SCALE)
    return (x32 / scale_T1).to(torch.float8_e4m3fn), scale_T1


def _fits(linear: nn.Linear) -> bool:
    return linear.in_features % MULTIPLE == 0 and linear.out_features % MULTIPLE == 0


def _quantise_int8(blocks: nn.Module, names: set[str]) -> None:
    try:
        quantization: Any = importlib.import_module("torchao.quantization")
    except (ImportError, OSError) as error:
        raise ConfigError(
            f'speed.linears = "int8" needs torchao, which cannot be imported ({error}); '
            f'{install_command("quant")} or set it to "full" or "fp8"'
        ) from None
    quantization.quantize_(
        blocks,
        quantization.Int8WeightOnlyConfig(),
        filter_fn=lambda module, name: name in names,
    )
