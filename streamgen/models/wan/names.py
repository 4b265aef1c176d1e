"""Names of Wan's parameters as published: prefixes that training left, and diffusers' naming.

The native names are those of Wan 2.1 (wan/modules/model.py), which causal checkpoints keep.
diffusers' are mapped as in its scripts/convert_wan_to_diffusers.py; note that it calls norm3 norm2
and norm2 norm3. Strings only; knows no tensors.
"""

from __future__ import annotations

import re

WRAPPED = ("_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module")
"""Components that FSDP, torch.compile and activation checkpointing put anywhere in a name."""
LEADING = ("module", "model", "diffusion_model", "base_model", "transformer")
"""Components that stand before the model's own names, also several of them."""

_TOP = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "head.modulation": "scale_shift_table",
    "head.head": "proj_out",
}
_ATTENTIONS = {"self_attn": "attn1", "cross_attn": "attn2"}
_PROJECTIONS = {
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "o": "to_out.0",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "k_img": "add_k_proj",
    "v_img": "add_v_proj",
    "norm_k_img": "norm_added_k",
}
_BLOCK = {
    "modulation": "scale_shift_table",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "norm3": "norm2",
    "norm2": "norm3",
    **{
        f"{native}.{own}": f"{theirs}.{other}"
        for native, theirs in _ATTENTIONS.items()
        for own, other in _PROJECTIONS.items()
    },
}
_TOP_BACK = {theirs: native for native, theirs in _TOP.items()}
_BLOCK_BACK = {theirs: native for native, theirs in _BLOCK.items()}
_BLOCK_NAME = re.compile(r"blocks\.(\d+)\.(.+)")
_LEAF = re.compile(r"(.+?)(\.(?:weight|bias))?$")
_UNDERSCORED = {part.replace(".", "_"): part for part in _BLOCK}


def strip_prefixes(name: str) -> str:
    """Remove what FSDP, compile, DDP and the wrapper classes of training put into a name."""
    parts = [part for part in name.split(".") if part not in WRAPPED]
    while len(parts) > 1 and parts[0] in LEADING:
        parts = parts[1:]
    return ".".join(parts)


def is_diffusers(name: str) -> bool:
    """Whether a stripped name can only be diffusers'."""
    return (
        name.startswith(("condition_embedder.", "proj_out.", "scale_shift_table"))
        or re.match(r"blocks\.\d+\.(attn[12]|ffn\.net|scale_shift_table)\b", name) is not None
    )


def to_native(name: str) -> str:
    """Native name of a parameter or module in diffusers' naming; unknown names stay."""
    return _translate(name, _TOP_BACK, _BLOCK_BACK)


def to_diffusers(name: str) -> str:
    """diffusers' name of a parameter or module in native naming; unknown names stay."""
    return _translate(name, _TOP, _BLOCK)


def block_of(name: str) -> int | None:
    """Number of the block that a native parameter belongs to; None outside the blocks."""
    match = _BLOCK_NAME.match(name)
    return int(match[1]) if match else None


def from_underscored(name: str) -> str | None:
    """blocks_3_self_attn_q -> blocks.3.self_attn.q (kohya's LoRA naming); None if not known."""
    match = re.fullmatch(r"blocks_(\d+)_(\w+)", name)
    if match and match[2] in _UNDERSCORED:
        return f"blocks.{match[1]}.{_UNDERSCORED[match[2]]}"
    return None


def _translate(name: str, top: dict[str, str], block: dict[str, str]) -> str:
    match = _BLOCK_NAME.fullmatch(name)
    prefix, rest = (f"blocks.{match[1]}.", match[2]) if match else ("", name)
    leaf = _LEAF.fullmatch(rest)
    assert leaf is not None
    module, suffix = leaf[1], leaf[2] or ""
    return f"{prefix}{(block if match else top).get(module, module)}{suffix}"
