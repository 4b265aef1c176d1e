"""Names: diffusers' and the native ones map one to one, and prefixes of training come off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from

from streamgen.models.wan.names import (
    LEADING,
    WRAPPED,
    from_underscored,
    is_diffusers,
    strip_prefixes,
    to_diffusers,
    to_native,
)
from tests.checkpoint_files import random_weights

NATIVE = [
    *sorted(random_weights(0)),
    "img_emb.proj.0.weight",
    "img_emb.proj.1.bias",
    "img_emb.proj.3.weight",
    "img_emb.proj.4.weight",
    "blocks.1.cross_attn.k_img.weight",
    "blocks.1.cross_attn.v_img.bias",
    "blocks.1.cross_attn.norm_k_img.weight",
]


@given(name=sampled_from(NATIVE))
def test_diffusers_naming_and_back_is_the_identity(name: str) -> None:
    assert to_native(to_diffusers(name)) == name


def test_no_two_parameters_share_a_name_of_diffusers() -> None:
    assert len({to_diffusers(name) for name in NATIVE}) == len(NATIVE)


@pytest.mark.parametrize(
    ("native", "diffusers"),
    [
        ("blocks.7.norm3.weight", "blocks.7.norm2.weight"),
        ("blocks.7.modulation", "blocks.7.scale_shift_table"),
        ("blocks.7.self_attn.o.bias", "blocks.7.attn1.to_out.0.bias"),
        ("blocks.7.cross_attn.norm_q.weight", "blocks.7.attn2.norm_q.weight"),
        ("blocks.7.ffn.0.weight", "blocks.7.ffn.net.0.proj.weight"),
        ("head.modulation", "scale_shift_table"),
        ("head.head.weight", "proj_out.weight"),
        ("time_projection.1.bias", "condition_embedder.time_proj.bias"),
        ("patch_embedding.weight", "patch_embedding.weight"),
        ("img_emb.proj.4.weight", "condition_embedder.image_embedder.norm2.weight"),
        ("blocks.0.cross_attn.norm_k_img.weight", "blocks.0.attn2.norm_added_k.weight"),
    ],
)
def test_names_are_those_of_the_published_conversion(native: str, diffusers: str) -> None:
    """Rows of diffusers/scripts/convert_wan_to_diffusers.py, the norm2/norm3 swap among them."""
    assert to_diffusers(native) == diffusers
    assert to_native(diffusers) == native


@given(
    name=sampled_from(NATIVE),
    leading=lists(sampled_from(LEADING), max_size=3),
    wrapped=lists(sampled_from(WRAPPED), max_size=2),
    place=integers(0, 5),
)
def test_prefixes_come_off_at_any_depth(
    name: str, leading: list[str], wrapped: list[str], place: int
) -> None:
    parts = [*leading, *name.split(".")]
    parts[place:place] = wrapped
    assert strip_prefixes(".".join(parts)) == name


def test_only_foreign_names_count_as_diffusers() -> None:
    ambiguous = {"patch_embedding.weight", "patch_embedding.bias"}
    for name in NATIVE:
        assert not is_diffusers(name)
        parts_differ = to_diffusers(name) != name and ".norm" not in name
        assert is_diffusers(to_diffusers(name)) or not parts_differ or name in ambiguous


def test_underscored_names_of_lora_files_become_native() -> None:
    assert from_underscored("blocks_12_cross_attn_norm_q") == "blocks.12.cross_attn.norm_q"
    assert from_underscored("blocks_12_ffn_0") == "blocks.12.ffn.0"
    assert from_underscored("blocks_12_elsewhere") is None
