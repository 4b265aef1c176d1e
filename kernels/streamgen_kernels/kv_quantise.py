"""Keys and values in 8 or 4 bits, one scale for each token and head: `streamgen.ops.quantise`.

Fused: largest magnitude, scale, round and pack in one pass over a head (the definition makes five
to nine kernels with float32 copies); the way back likewise in one, with the rotation that keys need
where they are stored unrotated.
Bytes moved for each number, bfloat16 to 8 bits: 2 read, 1 written, plus 4 / E for the scale; the
definition moves about 25. Back and rotated: 1 read, 2 written, plus angles, for about 40.
Gain: not measured on a GPU yet; `scripts/gpu_report.py` does, and writes it to benchmarks/.

Legend: ... any leading axes, E head dim, C stored numbers of a head (E, or E / 2 for 4 bits),
B rows, M tokens, N heads, P = E / 2.
"""

# Triton turns what is annotated constexpr, and whole kernels, into something else than is written:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamgen_kernels.launch import num_warps_for
from streamgen_kernels.pairs import store_pairs

HEADS = 16  # heads of one program
SMALLEST_SCALE = 1e-12


class Format(Protocol):
    """streamgen.ops.quantise.KVFormat, by shape: value is "fp8", "int8" or "int4"."""

    @property
    def value(self) -> str: ...
    @property
    def limit(self) -> float: ...
    @property
    def storage(self) -> torch.dtype: ...


class Table(Protocol):
    """streamgen.ops.rope.RopeTable, by shape."""

    @property
    def cos_BL1P(self) -> Tensor: ...
    @property
    def sin_BL1P(self) -> Tensor: ...


@triton.jit
def _round_even(x):
    whole = tl.floor(x)
    rest = x - whole
    is_odd = whole - 2.0 * tl.floor(whole * 0.5) > 0.5
    return tl.where((rest > 0.5) | ((rest == 0.5) & is_odd), whole + 1.0, whole)


@triton.jit
def _quantise(
    x_ptr, codes_ptr, scale_ptr, num_heads, head_dim, limit, smallest,
    KIND: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64) * HEADS + tl.arange(0, HEADS)
    lane = tl.arange(0, 2 * BLOCK)
    inside = (head < num_heads)[:, None] & (lane < head_dim)[None]
    x = tl.load(x_ptr + head[:, None] * head_dim + lane[None], mask=inside, other=0.0)
    x = x.to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), 1) / limit, smallest)
    tl.store(scale_ptr + head, scale, mask=head < num_heads)
    x = x / scale[:, None]
    if KIND == "int4":
        even, odd = tl.split(tl.reshape(_round_even(x) + 8.0, (HEADS, BLOCK, 2)))
        packed = even.to(tl.uint8) | (odd.to(tl.uint8) << 4)
        pair = tl.arange(0, BLOCK)
        inside = (head < num_heads)[:, None] & (2 * pair < head_dim)[None]
        at = codes_ptr + head[:, None] * (head_dim // 2) + pair[None]
        tl.store(at, packed, mask=inside)
    else:
        if KIND == "int8":
            x = _round_even(x)
        at = codes_ptr + head[:, None] * head_dim + lane[None]
        tl.store(at, x.to(codes_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _dequantise_rotate(
    codes_ptr, scale_ptr, cos_ptr, sin_ptr, out_ptr, dim, head_pairs, tokens, angle_rows,
    codes_row, codes_token, scale_row, scale_token,
    KIND: tl.constexpr, ROTATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One token of all heads."""
    token = tl.program_id(0).to(tl.int64)
    row = token // tokens
    within = token % tokens
    pair = tl.arange(0, BLOCK)
    inside = pair < dim // 2
    codes_at = codes_ptr + row * codes_row + within * codes_token
    if KIND == "int4":
        packed = tl.load(codes_at + pair, mask=inside, other=0).to(tl.int32)
        even = (packed & 15).to(tl.float32) - 8.0
        odd = (packed >> 4).to(tl.float32) - 8.0
    else:
        lane = tl.arange(0, 2 * BLOCK)
        codes = tl.load(codes_at + lane, mask=lane < dim).to(tl.float32)
        even, odd = tl.split(tl.reshape(codes, (BLOCK, 2)))
    scale_at = scale_ptr + row * scale_row + within * scale_token + pair // head_pairs
    scale = tl.load(scale_at, mask=inside, other=0.0)
    even = even * scale
    odd = odd * scale
    if ROTATES:
        angle_at = ((row % angle_rows) * tokens + within) * head_pairs + pair % head_pairs
        cos = tl.load(cos_ptr + angle_at, mask=inside, other=1.0)
        sin = tl.load(sin_ptr + angle_at, mask=inside, other=0.0)
        turned = even * cos - odd * sin
        odd = even * sin + odd * cos
        even = turned
    store_pairs(out_ptr + token * dim, even, odd, dim, BLOCK)


def quantise(x_E: Tensor, kind: Format) -> tuple[Tensor, Tensor]:
    """Codes [..., C] and float32 scales [...]; E is even."""
    x_E = x_E.contiguous()
    *leading, head_dim = x_E.shape
    _check(head_dim)
    stored = head_dim // 2 if kind.value == "int4" else head_dim
    codes = torch.empty((*leading, stored), device=x_E.device, dtype=kind.storage)
    scale = torch.empty(leading, device=x_E.device, dtype=torch.float32)
    num_heads = scale.numel()
    _quantise[(triton.cdiv(num_heads, HEADS),)](
        x_E, codes, scale, num_heads, head_dim, kind.limit, SMALLEST_SCALE,
        KIND=kind.value, HEADS=HEADS, BLOCK=triton.next_power_of_2(head_dim // 2),
    )  # fmt: skip
    return codes, scale


def dequantise(codes_C: Tensor, scale: Tensor, kind: Format, dtype: torch.dtype) -> Tensor:
    """What `quantise` stored, [..., E], in `dtype`."""
    heads, stored = scale.shape[-1], codes_C.shape[-1]
    codes_1MNC, scale_1MN = codes_C.reshape(1, -1, heads, stored), scale.reshape(1, -1, heads)
    out_1MNE = dequantise_rotate(codes_1MNC, scale_1MN, kind, dtype, None)
    return out_1MNE.reshape(*scale.shape, out_1MNE.shape[-1])


def dequantise_rotate(
    codes_BMNC: Tensor, scale_BMN: Tensor, kind: Format, dtype: torch.dtype, table: Table | None
) -> Tensor:
    """A window as attention reads it, BMNE; rows and tokens of codes and scales may be strided."""
    rows, tokens, num_heads, stored = codes_BMNC.shape
    if codes_BMNC.stride(3) != 1 or codes_BMNC.stride(2) != stored:
        codes_BMNC = codes_BMNC.contiguous()
    if scale_BMN.stride(2) != 1:
        scale_BMN = scale_BMN.contiguous()
    head_dim = stored * (2 if kind.value == "int4" else 1)
    _check(head_dim)
    out_BMNE = torch.empty((rows, tokens, num_heads, head_dim), device=codes_BMNC.device,
                           dtype=dtype)  # fmt: skip
    dim = num_heads * head_dim
    block = triton.next_power_of_2(dim // 2)
    _dequantise_rotate[(rows * tokens,)](
        codes_BMNC, scale_BMN, None if table is None else table.cos_BL1P,
        None if table is None else table.sin_BL1P, out_BMNE, dim, head_dim // 2, tokens,
        1 if table is None else table.cos_BL1P.shape[0], codes_BMNC.stride(0),
        codes_BMNC.stride(1), scale_BMN.stride(0), scale_BMN.stride(1),
        KIND=kind.value, ROTATES=table is not None, BLOCK=block,
        num_warps=num_warps_for(2 * block),
    )  # fmt: skip
    return out_BMNE


def _check(head_dim: int) -> None:
    if head_dim % 2:
        raise ValueError(f"a head of {head_dim} channels; the kernel takes pairs")
