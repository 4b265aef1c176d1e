"""RMSNorm of q and k, rotation, and the write into the ring: `streamgen.ops.qkv`.

Fused: two norms over the model dim, two rotations and the scattered copies of k and v, in one pass
over the projections (the definition makes about 14 kernels in PyTorch). One program is one token.
Bytes moved, bfloat16: q, k, v read once, q, k, v written once, 12 B L D, plus the angles; the
definition moves about 60 B L D, most of it in float32.
Gain: not measured on a GPU yet; `scripts/gpu_report.py` does, and writes it to benchmarks/.

Legend: B rows of a batch, F latent frames, S tokens of a latent frame, L = F * S, R cache rows,
G cells, N heads, E head dim, D = N * E, P = E / 2.
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
from streamgen_kernels.pairs import load_pairs, store_pairs


class Norms(Protocol):
    """streamgen.ops.qkv.QKNorms, by shape."""

    @property
    def q_D(self) -> Tensor: ...
    @property
    def k_D(self) -> Tensor: ...
    @property
    def eps(self) -> float: ...


class Table(Protocol):
    """streamgen.ops.rope.RopeTable, by shape."""

    @property
    def cos_BL1P(self) -> Tensor: ...
    @property
    def sin_BL1P(self) -> Tensor: ...


class Cells(Protocol):
    """streamgen.ops.qkv.Ring, by shape."""

    @property
    def keys_RGSNE(self) -> Tensor: ...
    @property
    def values_RGSNE(self) -> Tensor: ...
    @property
    def rows_B1(self) -> Tensor: ...
    @property
    def cells_BF(self) -> Tensor: ...


@triton.jit
def _norm_rotate(
    x_ptr, weight_ptr, cos_ptr, sin_ptr, token, angle, dim, head_pairs, eps,
    ROTATES: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Even and odd channels of one token, normalised and rotated; BLOCK pairs."""
    pair = tl.arange(0, BLOCK)
    inside = pair < dim // 2
    even, odd = load_pairs(x_ptr + token * dim, dim, BLOCK)
    scale = 1.0 / tl.sqrt((tl.sum(even * even, 0) + tl.sum(odd * odd, 0)) / dim + eps)
    even_weight, odd_weight = load_pairs(weight_ptr, dim, BLOCK)
    even = even * scale
    odd = odd * scale
    if ROUNDS:  # the definition rounds between the norm and its weight
        even = even.to(x_ptr.dtype.element_ty).to(tl.float32)
        odd = odd.to(x_ptr.dtype.element_ty).to(tl.float32)
    even = even * even_weight
    odd = odd * odd_weight
    if ROUNDS:
        even = even.to(x_ptr.dtype.element_ty).to(tl.float32)
        odd = odd.to(x_ptr.dtype.element_ty).to(tl.float32)
    if ROTATES:
        angle_at = angle * head_pairs + pair % head_pairs
        cos = tl.load(cos_ptr + angle_at, mask=inside, other=1.0)
        sin = tl.load(sin_ptr + angle_at, mask=inside, other=0.0)
        turned = even * cos - odd * sin
        odd = even * sin + odd * cos
        even = turned
    return even, odd


@triton.jit
def _norm_rotate_write(
    q_ptr, k_ptr, v_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr, out_ptr,
    keys_ptr, values_ptr, rows_ptr, cells_ptr,
    dim, head_pairs, tokens, frame_tokens, frames, angle_rows, row_stride, cell_stride, eps,
    ROTATES_KEYS: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = token // tokens
    within = token % tokens
    frame = within // frame_tokens
    place = within % frame_tokens
    angle = (row % angle_rows) * tokens + within
    even, odd = _norm_rotate(
        q_ptr, q_weight_ptr, cos_ptr, sin_ptr, token, angle, dim, head_pairs, eps,
        True, ROUNDS, BLOCK,
    )  # fmt: skip
    store_pairs(out_ptr + token * dim, even, odd, dim, BLOCK)
    even, odd = _norm_rotate(
        k_ptr, k_weight_ptr, cos_ptr, sin_ptr, token, angle, dim, head_pairs, eps,
        ROTATES_KEYS, ROUNDS, BLOCK,
    )  # fmt: skip
    cache_row = tl.load(rows_ptr + row).to(tl.int64)
    cell = tl.load(cells_ptr + row * frames + frame).to(tl.int64)
    target = cache_row * row_stride + cell * cell_stride + place * dim
    store_pairs(keys_ptr + target, even, odd, dim, BLOCK)
    lane = tl.arange(0, 2 * BLOCK)
    value = tl.load(v_ptr + token * dim + lane, mask=lane < dim, other=0.0)
    value = value.to(values_ptr.dtype.element_ty)
    tl.store(values_ptr + target + lane, value, mask=lane < dim)


@triton.jit
def _rotate(
    x_ptr, cos_ptr, sin_ptr, out_ptr, dim, head_pairs, tokens, angle_rows, x_row, x_token,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = token // tokens
    within = token % tokens
    pair = tl.arange(0, BLOCK)
    inside = pair < dim // 2
    even, odd = load_pairs(x_ptr + row * x_row + within * x_token, dim, BLOCK)
    angle_at = ((row % angle_rows) * tokens + within) * head_pairs + pair % head_pairs
    cos = tl.load(cos_ptr + angle_at, mask=inside, other=1.0)
    sin = tl.load(sin_ptr + angle_at, mask=inside, other=0.0)
    out_at = out_ptr + token * dim
    store_pairs(out_at, even * cos - odd * sin, even * sin + odd * cos, dim, BLOCK)


def rotate(x_BLNE: Tensor, table: Table) -> Tensor:
    """`streamgen.ops.rope.rotate` in one pass; rows and tokens of x may be strided."""
    rows, tokens, num_heads, head_dim = x_BLNE.shape
    if x_BLNE.stride(3) != 1 or x_BLNE.stride(2) != head_dim:
        x_BLNE = x_BLNE.contiguous()
    out_BLNE = torch.empty((rows, tokens, num_heads, head_dim), device=x_BLNE.device,
                           dtype=x_BLNE.dtype)  # fmt: skip
    dim = num_heads * head_dim
    block = triton.next_power_of_2(dim // 2)
    _rotate[(rows * tokens,)](
        x_BLNE, table.cos_BL1P, table.sin_BL1P, out_BLNE, dim, head_dim // 2, tokens,
        table.cos_BL1P.shape[0], x_BLNE.stride(0), x_BLNE.stride(1),
        BLOCK=block, num_warps=num_warps_for(2 * block),
    )  # fmt: skip
    return out_BLNE


def norm_rotate_write(
    q_BLD: Tensor,
    k_BLD: Tensor,
    v_BLD: Tensor,
    norms: Norms,
    table: Table,
    ring: Cells,
    rotates_keys: bool,
) -> Tensor:
    """Normalise and rotate q and k, store k and v in the ring; returns q, BLNE."""
    rows, tokens, dim = q_BLD.shape
    num_heads, head_dim = ring.keys_RGSNE.shape[-2:]
    _check_ring(ring, dim)
    frames = ring.cells_BF.shape[1]
    q_BLD, k_BLD, v_BLD = q_BLD.contiguous(), k_BLD.contiguous(), v_BLD.contiguous()
    out_BLNE = torch.empty((rows, tokens, num_heads, head_dim), device=q_BLD.device,
                           dtype=q_BLD.dtype)  # fmt: skip
    block = triton.next_power_of_2(dim // 2)
    _norm_rotate_write[(rows * tokens,)](
        q_BLD, k_BLD, v_BLD, norms.q_D, norms.k_D, table.cos_BL1P, table.sin_BL1P, out_BLNE,
        ring.keys_RGSNE, ring.values_RGSNE, ring.rows_B1.contiguous(), ring.cells_BF.contiguous(),
        dim, head_dim // 2, tokens, tokens // frames, frames, table.cos_BL1P.shape[0],
        ring.keys_RGSNE.stride(0), ring.keys_RGSNE.stride(1), norms.eps,
        ROTATES_KEYS=rotates_keys, ROUNDS=q_BLD.dtype != torch.float32,
        BLOCK=block, num_warps=num_warps_for(2 * block),
    )  # fmt: skip
    return out_BLNE


def _check_ring(ring: Cells, dim: int) -> None:
    """A cell's tokens lie side by side, and keys and values are laid out alike."""
    keys, values = ring.keys_RGSNE, ring.values_RGSNE
    num_tokens, num_heads, head_dim = keys.shape[2:]
    if keys.stride() != values.stride() or num_heads * head_dim != dim:
        raise ValueError(f"keys {tuple(keys.shape)} and values {tuple(values.shape)} do not match")
    if keys.stride()[2:] != (dim, head_dim, 1):
        raise ValueError(f"the {num_tokens} tokens of a cell are not side by side")
