"""Blends of features: ends are met, lines are straight, arcs keep their length.

Legend: M tokens, D features.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers, sampled_from
from torch import Tensor

from streamgen.ops.blending import Blend, between, blended

TOLERANCE = 1e-5  # float32; angles go through acos


def features(seed: int, length: int = 5) -> Tensor:
    return torch.randn(length, 8, generator=torch.Generator().manual_seed(seed))


@given(seed=integers(0, 99), blend=sampled_from(Blend))
def test_a_blend_begins_and_ends_at_its_parts(seed: int, blend: Blend) -> None:
    start_MD, end_MD = features(seed), features(seed + 100)
    for share, wanted in ((0.0, start_MD), (1.0, end_MD)):
        torch.testing.assert_close(
            between(start_MD, end_MD, share, blend), wanted, atol=TOLERANCE, rtol=0
        )


@given(share=floats(0, 1), scale=floats(0.1, 10))
def test_an_arc_keeps_to_even_lengths_and_even_angles(share: float, scale: float) -> None:
    start_MD = features(1)
    end_MD = features(2) * scale
    arc_MD = between(start_MD, end_MD, share, Blend.SLERP)
    lengths = torch.lerp(start_MD.norm(dim=-1), end_MD.norm(dim=-1), share)
    torch.testing.assert_close(arc_MD.norm(dim=-1), lengths, atol=1e-4, rtol=1e-4)
    whole = torch.cosine_similarity(start_MD, end_MD).clamp(-1, 1).acos()
    part = torch.cosine_similarity(start_MD, arc_MD).clamp(-1, 1).acos()
    torch.testing.assert_close(part, whole * share, atol=2e-3, rtol=0)


def test_tokens_that_span_no_angle_take_the_straight_line() -> None:
    """Empty tokens behind a short prompt, equal tokens, opposite tokens: no number is lost."""
    start_MD = torch.stack([torch.zeros(8), torch.ones(8), torch.ones(8)])
    end_MD = torch.stack([torch.ones(8), torch.ones(8), -torch.ones(8)])
    arc_MD = between(start_MD, end_MD, 0.25, Blend.SLERP)
    torch.testing.assert_close(arc_MD, between(start_MD, end_MD, 0.25, Blend.LINEAR))


@given(weights=sampled_from([(1.0, 1.0, 2.0), (0.5, 0.25, 0.25), (3.0, 0.0, 1.0)]))
def test_linear_blends_are_weighted_means(weights: tuple[float, ...]) -> None:
    parts = [(features(seed, seed + 2), weight) for seed, weight in enumerate(weights)]
    wanted_MD = torch.zeros(4, 8)
    for features_MD, weight in parts:
        wanted_MD[: len(features_MD)] += features_MD * weight / sum(weights)
    mixed_MD = blended(parts, Blend.LINEAR)
    torch.testing.assert_close(mixed_MD, wanted_MD[: len(mixed_MD)], atol=TOLERANCE, rtol=0)


def test_a_part_without_weight_is_not_there() -> None:
    one_MD = features(1)
    assert torch.equal(blended([(one_MD, 2.0), (features(2, 9), 0.0)], Blend.SLERP), one_MD)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.0, 2.0)])
def test_weights_that_mean_nothing_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="one is above 0"):
        blended([(features(1), weights[0]), (features(2), weights[1])], Blend.LINEAR)


def test_half_precision_comes_back_as_it_went_in() -> None:
    pair = [(features(1).bfloat16(), 1.0), (features(2).bfloat16(), 1.0)]
    assert blended(pair, Blend.SLERP).dtype is torch.bfloat16
