"""Pictures to what codecs read and back, with resizing: `streamgen.ops.pixels`.

Fused: cast, scale, channel order and (on the way in) bilinear resizing in one pass; the definition
makes three to five kernels and a float32 copy of the picture in between.
Bytes moved for each pixel and channel, bfloat16: 1 read and 2 written on the way in (without
resizing), 2 read and 1 written on the way out; the definition moves about 20.
Gain: not measured on a GPU yet; `scripts/gpu_report.py` does, and writes it to benchmarks/.

Legend: T pixel frames, H W height and width.
"""

# Triton turns what is annotated constexpr, and whole kernels, into something else than is written:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _sample(pixels_ptr, base, y, x, width, stride_h, stride_w, inside):
    at = pixels_ptr + base + y * stride_h + x * stride_w
    return tl.load(at, mask=inside, other=0).to(tl.float32)


@triton.jit
def _to_signed(
    pixels_ptr, out_ptr, height, width, out_height, out_width, step_y, step_x,
    stride_t, stride_h, stride_w, stride_c, RESIZES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(1).to(tl.int64)  # frame * 3 + channel
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < out_height * out_width
    row = lane // out_width
    column = lane % out_width
    base = (plane // 3) * stride_t + (plane % 3) * stride_c
    if RESIZES:
        y = tl.maximum((row.to(tl.float32) + 0.5) * step_y - 0.5, 0.0)
        x = tl.maximum((column.to(tl.float32) + 0.5) * step_x - 0.5, 0.0)
        top = tl.minimum(y.to(tl.int32), height - 1)
        left = tl.minimum(x.to(tl.int32), width - 1)
        bottom = tl.minimum(top + 1, height - 1)
        right = tl.minimum(left + 1, width - 1)
        down = y - top.to(tl.float32)
        across = x - left.to(tl.float32)
        a = _sample(pixels_ptr, base, top, left, width, stride_h, stride_w, inside)
        b = _sample(pixels_ptr, base, top, right, width, stride_h, stride_w, inside)
        c = _sample(pixels_ptr, base, bottom, left, width, stride_h, stride_w, inside)
        d = _sample(pixels_ptr, base, bottom, right, width, stride_h, stride_w, inside)
        upper = a + (b - a) * across
        lower = c + (d - c) * across
        value = upper + (lower - upper) * down
    else:
        value = _sample(pixels_ptr, base, row, column, width, stride_h, stride_w, inside)
    signed = value / 127.5 - 1.0
    at = plane * out_height * out_width + lane
    tl.store(out_ptr + at, signed.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _to_bytes(
    pixels_ptr, out_ptr, area, width, stride_t, stride_c, stride_h, stride_w, BLOCK: tl.constexpr
):
    frame = tl.program_id(1).to(tl.int64)
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < area * 3
    place = lane // 3
    at = (
        frame * stride_t + (lane % 3) * stride_c
        + (place // width) * stride_h + (place % width) * stride_w
    )  # fmt: skip
    value = (tl.load(pixels_ptr + at, mask=inside, other=0.0).to(tl.float32) + 1.0) * 127.5
    whole = tl.floor(value)
    rest = value - whole
    is_odd = whole - 2.0 * tl.floor(whole * 0.5) > 0.5
    up = (rest > 0.5) | ((rest == 0.5) & is_odd)  # to the even neighbour, as torch.round does
    whole = tl.minimum(tl.maximum(tl.where(up, whole + 1.0, whole), 0.0), 255.0)
    tl.store(out_ptr + frame * area * 3 + lane, whole.to(tl.uint8), mask=inside)


def to_signed(pixels_THWC: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes to [-1, 1], [T, 3, H, W]."""
    return _signed(pixels_THWC, pixels_THWC.shape[1], pixels_THWC.shape[2], dtype)


def to_signed_resized(pixels_THWC: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Bytes to [-1, 1] at another size, bilinear: [T, 3, height, width]."""
    return _signed(pixels_THWC, height, width, dtype)


def _signed(pixels_THWC: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    frames, own_height, own_width, _ = pixels_THWC.shape
    out_TCHW = torch.empty((frames, 3, height, width), device=pixels_THWC.device, dtype=dtype)
    stride_t, stride_h, stride_w, stride_c = pixels_THWC.stride()
    _to_signed[(triton.cdiv(height * width, BLOCK), frames * 3)](
        pixels_THWC, out_TCHW, own_height, own_width, height, width,
        own_height / height, own_width / width, stride_t, stride_h, stride_w, stride_c,
        RESIZES=(height, width) != (own_height, own_width), BLOCK=BLOCK,
    )  # fmt: skip
    return out_TCHW


def to_bytes(pixels_TCHW: Tensor) -> Tensor:
    """[-1, 1] to bytes [T, H, W, 3], rounded to nearest (ties to even) and cut off."""
    frames, channels, height, width = pixels_TCHW.shape
    out_THWC = torch.empty((frames, height, width, channels), device=pixels_TCHW.device,
                           dtype=torch.uint8)  # fmt: skip
    _to_bytes[(triton.cdiv(height * width * 3, BLOCK), frames)](
        pixels_TCHW, out_THWC, height * width, width, *pixels_TCHW.stride(), BLOCK=BLOCK
    )
    return out_THWC
