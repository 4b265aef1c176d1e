"""Keys and values in 8 or 4 bits, one scale for each token and head: `streamgen.ops.quantise`.

Fused: largest magnitude, scale, round and pack in one pass over a head (the definition makes five
to nine kernels with float32 copies); the way back likewise in one.
Bytes moved for each number, bfloat16 to 8 bits: 2 read, 1 written, plus 4 / E for the scale; the
definition moves about 25.
Gain: not measured on a GPU yet; `scripts/gpu_report.py` does, and writes it to benchmarks/.

Legend: ... any leading axes, E head dim, C stored numbers of a head (E, or E / 2 for 4 bits).
"""

# Triton turns what is annotated constexpr, and whole kernels, into something else than is written:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

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


@triton.jit
def _round_even(x):
    whole = tl.floor(x)
    rest = x - whole
    is_odd = whole - 2.0 * tl.floor(whole * 0.5) > 0.5
    return tl.where((rest > 0.5) | ((rest == 0.5) & is_odd), whole + 1.0, whole)


@triton.jit
def _quantise(
    x_ptr, codes_ptr, scale_ptr, num_heads, limit, smallest,
    E: tl.constexpr, KIND: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64) * HEADS + tl.arange(0, HEADS)
    inside = head < num_heads
    half: tl.constexpr = E // 2
    pair = tl.arange(0, half)
    at = x_ptr + head[:, None] * E + 2 * pair[None]
    even = tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
    odd = tl.load(at + 1, mask=inside[:, None], other=0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(even), 1), tl.max(tl.abs(odd), 1))
    scale = tl.maximum(largest / limit, smallest)
    tl.store(scale_ptr + head, scale, mask=inside)
    even = even / scale[:, None]
    odd = odd / scale[:, None]
    if KIND == "int4":
        low = (_round_even(even) + 8.0).to(tl.uint8)
        high = (_round_even(odd) + 8.0).to(tl.uint8)
        packed = low | (high << 4)
        tl.store(codes_ptr + head[:, None] * half + pair[None], packed, mask=inside[:, None])
    else:
        if KIND == "int8":
            even = _round_even(even)
            odd = _round_even(odd)
        to = codes_ptr + head[:, None] * E + 2 * pair[None]
        tl.store(to, even.to(codes_ptr.dtype.element_ty), mask=inside[:, None])
        tl.store(to + 1, odd.to(codes_ptr.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _dequantise(
    codes_ptr, scale_ptr, out_ptr, num_heads,
    E: tl.constexpr, KIND: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64) * HEADS + tl.arange(0, HEADS)
    inside = head < num_heads
    half: tl.constexpr = E // 2
    pair = tl.arange(0, half)
    scale = tl.load(scale_ptr + head, mask=inside, other=0.0)[:, None]
    if KIND == "int4":
        at = codes_ptr + head[:, None] * half + pair[None]
        packed = tl.load(at, mask=inside[:, None], other=0).to(tl.int32)
        even = (packed & 15).to(tl.float32) - 8.0
        odd = (packed >> 4).to(tl.float32) - 8.0
    else:
        at = codes_ptr + head[:, None] * E + 2 * pair[None]
        even = tl.load(at, mask=inside[:, None]).to(tl.float32)
        odd = tl.load(at + 1, mask=inside[:, None]).to(tl.float32)
    to = out_ptr + head[:, None] * E + 2 * pair[None]
    tl.store(to, (even * scale).to(out_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(to + 1, (odd * scale).to(out_ptr.dtype.element_ty), mask=inside[:, None])


def quantise(x_E: Tensor, kind: Format) -> tuple[Tensor, Tensor]:
    """Codes [..., C] and float32 scales [...]; E is a power of two."""
    x_E = x_E.contiguous()
    *leading, head_dim = x_E.shape
    _check(head_dim)
    stored = head_dim // 2 if kind.value == "int4" else head_dim
    codes = torch.empty((*leading, stored), device=x_E.device, dtype=kind.storage)
    scale = torch.empty(leading, device=x_E.device, dtype=torch.float32)
    num_heads = scale.numel()
    _quantise[(triton.cdiv(num_heads, HEADS),)](
        x_E, codes, scale, num_heads, kind.limit, SMALLEST_SCALE,
        E=head_dim, KIND=kind.value, HEADS=HEADS,
    )  # fmt: skip
    return codes, scale


def dequantise(codes_C: Tensor, scale: Tensor, kind: Format, dtype: torch.dtype) -> Tensor:
    """What `quantise` stored, [..., E], in `dtype`."""
    codes_C, scale = codes_C.contiguous(), scale.contiguous()
    head_dim = codes_C.shape[-1] * (2 if kind.value == "int4" else 1)
    _check(head_dim)
    out = torch.empty((*scale.shape, head_dim), device=codes_C.device, dtype=dtype)
    num_heads = scale.numel()
    _dequantise[(triton.cdiv(num_heads, HEADS),)](
        codes_C, scale, out, num_heads, E=head_dim, KIND=kind.value, HEADS=HEADS
    )
    return out


def _check(head_dim: int) -> None:
    if head_dim & (head_dim - 1) or head_dim < 2:
        raise ValueError(f"a head of {head_dim} channels; the kernel takes powers of two")
