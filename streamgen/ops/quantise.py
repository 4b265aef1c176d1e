"""Keys and values in 8 or 4 bits: one scale for each token and head.

Symmetric, nearest: x is about code * scale with scale = max |x| / limit, over the channels of one
head of one token. FP8 is e4m3 (Micikevicius et al. 2022, arXiv:2209.05433, table 1).

Legend: ... any leading axes, E head dim, C bytes of a head: E for 8 bits, E / 2 for 4,
B rows, M tokens, N heads.
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from streamgen.ops.rope import RopeTable, rotate

SMALLEST_SCALE = 1e-12  # of a head that is all zeros: its codes are zeros whatever the scale


class KVFormat(Enum):
    """How a number of a key or value is stored."""

    FULL = "full"
    """As the model computes it."""
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def limit(self) -> float:
        """The largest code."""
        return {KVFormat.FP8: 448.0, KVFormat.INT8: 127.0, KVFormat.INT4: 7.0}[self]

    @property
    def storage(self) -> torch.dtype:
        kinds = {KVFormat.FP8: torch.float8_e4m3fn, KVFormat.INT8: torch.int8}
        return kinds.get(self, torch.uint8)

    def stored_channels(self, head_dim: int) -> int:
        """Stored numbers of one head."""
        return head_dim // 2 if self is KVFormat.INT4 else head_dim

    def bytes_a_head(self, head_dim: int, item_bytes: int) -> int:
        """Memory of one head of one token, its scale included; `item_bytes` of a full number."""
        if self is KVFormat.FULL:
            return head_dim * item_bytes
        return self.stored_channels(head_dim) + torch.float32.itemsize


def quantise(x_E: Tensor, kind: KVFormat) -> tuple[Tensor, Tensor]:
    """Codes [..., C] and scales float32 [...] of x [..., E]; E is even for INT4."""
    x32 = x_E.float()
    scale = (x32.abs().amax(-1) / kind.limit).clamp(min=SMALLEST_SCALE)
    scaled = x32 / scale[..., None]
    if kind is KVFormat.FP8:
        return scaled.to(torch.float8_e4m3fn), scale
    codes = scaled.round().clamp(-kind.limit, kind.limit).to(torch.int8)
    return (_packed(codes) if kind is KVFormat.INT4 else codes), scale


def dequantise(codes_C: Tensor, scale: Tensor, kind: KVFormat, dtype: torch.dtype) -> Tensor:
    """What `quantise` stored, [..., E], in `dtype`."""
    codes = _unpacked(codes_C) if kind is KVFormat.INT4 else codes_C
    return (codes.float() * scale[..., None]).to(dtype)


def dequantise_rotate(
    codes_BMNC: Tensor,
    scale_BMN: Tensor,
    kind: KVFormat,
    dtype: torch.dtype,
    table: RopeTable | None,
) -> Tensor:
    """A window as attention reads it, BMNE: `dequantise`, then `rope.rotate` if there is a table.

    Rotated in float32 and rounded once.
    """
    if table is None:
        return dequantise(codes_BMNC, scale_BMN, kind, dtype)
    return rotate(dequantise(codes_BMNC, scale_BMN, kind, torch.float32), table).to(dtype)


def _packed(codes_E: Tensor) -> Tensor:
    """Two codes a byte, the even channel in the low half; stored as code + 8."""
    low, high = (codes_E + 8).to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return low | (high << 4)


def _unpacked(bytes_C: Tensor) -> Tensor:
    halves = torch.stack((bytes_C & 15, bytes_C >> 4), dim=-1).flatten(-2)
    return halves.to(torch.int8) - 8
