"""Between pictures and what codecs read: uint8 [T, H, W, 3] and floats [T, 3, H, W] in [-1, 1].

Legend: T pixel frames, H W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def to_signed(pixels_THWC: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes 0 to 255 to [-1, 1], channels first."""
    return pixels_THWC.permute(0, 3, 1, 2).to(dtype) / 127.5 - 1


def to_bytes(pixels_TCHW: Tensor) -> Tensor:
    """[-1, 1] to bytes, rounded to nearest and cut off, channels last and contiguous."""
    scaled = (pixels_TCHW.float() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_signed_resized(pixels_THWC: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """`to_signed` at another size: bilinear, pixel centres kept in place, computed in float32."""
    resized = functional.interpolate(
        to_signed(pixels_THWC, torch.float32), (height, width), mode="bilinear", align_corners=False
    )
    return resized.to(dtype)
