"""The operations that a model and its cache run on: one table, chosen once, handed in.

`PLAIN` holds the definitions. Every other table holds functions of the same signatures, equal
up to rounding; `ops.backend` chooses. Nothing here asks about hardware.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.ops import modulation, pixels, qkv, quantise, rope
from streamgen.ops.attention import attention
from streamgen.ops.qkv import QKNorms, Ring
from streamgen.ops.quantise import KVFormat
from streamgen.ops.rope import RopeTable

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q_BLNE, k_BMNE, v_BMNE) to BLNE."""

FlowStep = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""See `streamgen.ops.flow_step`."""


@dataclass(frozen=True, slots=True)
class Operations:
    """See the functions of the same names in streamgen.ops for what each one computes."""

    name: str
    """For logs and reports."""
    attention: Attention
    norm_modulate: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    gated_residual: Callable[[Tensor, Tensor, Tensor], Tensor]
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    rotate: Callable[[Tensor, RopeTable], Tensor]
    norm_rotate_write: Callable[[Tensor, Tensor, Tensor, QKNorms, RopeTable, Ring, bool], Tensor]
    flow_step: FlowStep | None
    """None: the float64 arithmetic of `streamgen.diffusion.flow`."""
    quantise: Callable[[Tensor, KVFormat], tuple[Tensor, Tensor]]
    dequantise: Callable[[Tensor, Tensor, KVFormat, torch.dtype], Tensor]
    dequantise_rotate: Callable[[Tensor, Tensor, KVFormat, torch.dtype, RopeTable | None], Tensor]
    to_signed: Callable[[Tensor, torch.dtype], Tensor]
    to_bytes: Callable[[Tensor], Tensor]


PLAIN = Operations(
    name="plain",
    attention=attention,
    norm_modulate=modulation.norm_modulate,
    gated_residual=modulation.gated_residual,
    rms_norm=modulation.rms_norm,
    rotate=rope.rotate,
    norm_rotate_write=qkv.norm_rotate_write,
    flow_step=None,
    quantise=quantise.quantise,
    dequantise=quantise.dequantise,
    dequantise_rotate=quantise.dequantise_rotate,
    to_signed=pixels.to_signed,
    to_bytes=pixels.to_bytes,
)
