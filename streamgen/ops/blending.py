"""Blends of prompts' features, pure functions on tensors.

Legend: M tokens of a prompt, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

PARALLEL = 1e-4  # radians; below it, and for empty tokens, an arc is a straight line


class Blend(StrEnum):
    """Which way leads from one prompt's features to another's."""

    LINEAR = "linear"
    """The straight line."""
    SLERP = "slerp"
    """Token by token along the arc between them, lengths changing evenly (Shoemake 1985)."""


def blended(parts: Sequence[tuple[Tensor, float]], blend: Blend) -> Tensor:
    """Features [M, D] between those of several prompts, by weights that need not add up to 1.

    A shorter prompt counts as followed by zeros, which is how models read it. One part after the
    other is blended into those before it, by its share of the weights so far. Raises ValueError
    unless weights are not negative and one is above 0.
    """
    if any(weight < 0 for _, weight in parts) or not any(weight > 0 for _, weight in parts):
        raise ValueError("weights of a blend are not negative, and one is above 0")
    counted = [(features_MD, weight) for features_MD, weight in parts if weight > 0]
    length = max(len(features_MD) for features_MD, _ in counted)
    result_MD, total = _padded(counted[0][0], length), counted[0][1]
    for features_MD, weight in counted[1:]:
        total += weight
        result_MD = between(result_MD, _padded(features_MD, length), weight / total, blend)
    return result_MD


def between(start_MD: Tensor, end_MD: Tensor, share: float, blend: Blend) -> Tensor:
    """Features `share` of the way, 0 to 1, from one prompt's to another's of equal length."""
    straight_MD = torch.lerp(start_MD.float(), end_MD.float(), share)
    if blend is Blend.SLERP:
        straight_MD = _arc(start_MD.float(), end_MD.float(), share, straight_MD)
    return straight_MD.to(start_MD.dtype)


def _arc(start_MD: Tensor, end_MD: Tensor, share: float, straight_MD: Tensor) -> Tensor:
    """Along the arc where two tokens span an angle; `straight_MD` where they do not."""
    lengths = [features.norm(dim=-1, keepdim=True) for features in (start_MD, end_MD)]
    product = lengths[0] * lengths[1]
    cosine = (start_MD * end_MD).sum(-1, keepdim=True) / product.clamp_min(1e-12)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    spans = (product > 0) & (sine > PARALLEL)
    units = [
        features / length.clamp_min(1e-12)
        for features, length in zip((start_MD, end_MD), lengths, strict=True)
    ]
    direction_MD = units[0] * ((1 - share) * angle).sin() + units[1] * (share * angle).sin()
    length = torch.lerp(lengths[0], lengths[1], share)
    return torch.where(spans, direction_MD / sine.clamp_min(PARALLEL) * length, straight_MD)


def _padded(features_MD: Tensor, length: int) -> Tensor:
    return functional.pad(features_MD, (0, 0, 0, length - len(features_MD)))
