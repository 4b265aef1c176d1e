"""LayerNorm with modulation, and the gated residual: `streamgen.ops.modulation`.

Fused: mean, variance, normalise, scale, shift in one pass (the definition makes four kernels in
PyTorch: cast and norm, cast back, multiply, add); gate and add in one pass instead of two.
Bytes moved: norm_modulate reads and writes x once, 4 B L D in bfloat16, where the definition moves
about 20 B L D; gated_residual reads x and update and writes once, 6 B L D instead of 10 B L D.
Gain: not measured on a GPU yet; `scripts/gpu_report.py` does, and writes it to benchmarks/.

Legend: B rows, F latent frames, L tokens (F frames of equal size), D model dim.
"""

# Triton turns what is annotated constexpr, and whole kernels, into something else than is written:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamgen_kernels.launch import num_warps_for


@triton.jit
def _norm_modulate(
    x_ptr, shift_ptr, scale_ptr, out_ptr, dim, tokens, frame_tokens, frames,
    shift_row, shift_frame, scale_row, scale_frame, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = token // tokens
    frame = (token % tokens) // frame_tokens
    lane = tl.arange(0, BLOCK)
    inside = lane < dim
    x = tl.load(x_ptr + token * dim + lane, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / dim
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, 0) / dim
    normed = centred / tl.sqrt(variance + eps)
    shift_at = shift_ptr + row * shift_row + frame * shift_frame + lane
    scale_at = scale_ptr + row * scale_row + frame * scale_frame + lane
    shift = tl.load(shift_at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_at, mask=inside, other=0.0).to(tl.float32)
    out = normed * (1.0 + scale) + shift
    tl.store(out_ptr + token * dim + lane, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gated_residual(
    x_ptr, update_ptr, gate_ptr, out_ptr, dim, tokens, frame_tokens,
    gate_row, gate_frame, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = token // tokens
    frame = (token % tokens) // frame_tokens
    lane = tl.arange(0, BLOCK)
    inside = lane < dim
    at = token * dim + lane
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    update = tl.load(update_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gate_at = gate_ptr + row * gate_row + frame * gate_frame + lane
    gate = tl.load(gate_at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, (x + update * gate).to(out_ptr.dtype.element_ty), mask=inside)


def norm_modulate(x_BLD: Tensor, shift_BFD: Tensor, scale_BFD: Tensor, eps: float) -> Tensor:
    """LayerNorm without weights, times 1 + scale, plus shift; float32 inside, once rounded."""
    x_BLD = x_BLD.contiguous()
    rows, tokens, dim = x_BLD.shape
    frames = shift_BFD.shape[1]
    shift_BFD, scale_BFD = _dense(shift_BFD, rows), _dense(scale_BFD, rows)
    out_BLD = torch.empty_like(x_BLD)
    block = triton.next_power_of_2(dim)
    _norm_modulate[(rows * tokens,)](
        x_BLD, shift_BFD, scale_BFD, out_BLD, dim, tokens, tokens // frames, frames,
        shift_BFD.stride(0), shift_BFD.stride(1), scale_BFD.stride(0), scale_BFD.stride(1),
        eps, BLOCK=block, num_warps=num_warps_for(block),
    )  # fmt: skip
    return out_BLD


def gated_residual(x_BLD: Tensor, update_BLD: Tensor, gate_BFD: Tensor) -> Tensor:
    """x + update * gate, each latent frame with its own gate; float32 inside, once rounded."""
    x_BLD, update_BLD = x_BLD.contiguous(), update_BLD.contiguous()
    rows, tokens, dim = x_BLD.shape
    gate_BFD = _dense(gate_BFD, rows)
    out_BLD = torch.empty_like(x_BLD)
    block = triton.next_power_of_2(dim)
    _gated_residual[(rows * tokens,)](
        x_BLD, update_BLD, gate_BFD, out_BLD, dim, tokens, tokens // gate_BFD.shape[1],
        gate_BFD.stride(0), gate_BFD.stride(1), BLOCK=block, num_warps=num_warps_for(block),
    )  # fmt: skip
    return out_BLD


def _dense(values_BFD: Tensor, rows: int) -> Tensor:
    """With channels side by side; one row may stand for all."""
    if values_BFD.shape[0] != rows:
        values_BFD = values_BFD.expand(rows, -1, -1)
    return values_BFD if values_BFD.stride(-1) == 1 else values_BFD.contiguous()
