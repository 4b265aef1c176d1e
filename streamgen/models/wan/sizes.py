"""Tells a model's size from the shapes of its parameters, and compares it with what is wanted.

Works on native names and shapes; reads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.names import block_of

HEAD_DIM = 128  # of every published size (Wan 2.1 and 2.2, wan/configs)
TEXT_LEN = 512
EPS = 1e-6

_PUBLISHED = {  # (dim, blocks): name, https://github.com/Wan-Video/Wan2.1 and Wan2.2, wan/configs
    (1536, 30): "1.3B",
    (3072, 30): "5B",
    (5120, 40): "14B",
}


def _published(dim: int, ffn_dim: int, num_heads: int, num_blocks: int) -> WanConfig:
    """Wan 2.1 text-to-video: 16 latent channels, patches of 2x2, 512 tokens of UMT5-XXL."""
    return WanConfig(
        in_dim=16,
        out_dim=16,
        dim=dim,
        ffn_dim=ffn_dim,
        freq_dim=256,
        text_dim=4096,
        text_len=TEXT_LEN,
        num_heads=num_heads,
        num_blocks=num_blocks,
        patch_height=2,
        patch_width=2,
        eps=EPS,
    )


PUBLISHED: Mapping[str, WanConfig] = {  # Wan-Video/Wan2.1, wan/configs, wan_t2v_*.py
    "1.3B": _published(dim=1536, ffn_dim=8960, num_heads=12, num_blocks=30),
    "14B": _published(dim=5120, ffn_dim=13824, num_heads=40, num_blocks=40),
}

Shapes = Mapping[str, tuple[int, ...]]


class NotAWanDiTError(ValueError):
    """The shapes are not those of a Wan DiT; the message says which parameter tells."""


def infer_config(
    shapes: Shapes, *, head_dim: int = HEAD_DIM, text_len: int = TEXT_LEN, eps: float = EPS
) -> WanConfig:
    """Sizes of the model that `shapes` (native name to shape) belong to.

    Heads, text length and eps leave no trace in the shapes; all published sizes share the
    defaults. Raises NotAWanDiTError if a parameter that tells a size is absent or of another rank.
    """
    dim, in_dim, patch_time, patch_height, patch_width = _shape(
        shapes, "patch_embedding.weight", rank=5
    )
    if patch_time != 1:
        raise NotAWanDiTError(
            f"patch_embedding.weight has patches of {patch_time} latent frames, not 1"
        )
    if dim % head_dim:
        raise NotAWanDiTError(
            f"dim {dim} is not a multiple of head dim {head_dim}; give its config"
        )
    head_out = _shape(shapes, "head.head.weight", rank=2)[0]
    if head_out % (patch_height * patch_width):
        raise NotAWanDiTError(
            f"head.head.weight writes {head_out} numbers a token, patches have "
            f"{patch_height}x{patch_width}"
        )
    numbers = {index for name in shapes if (index := block_of(name)) is not None}
    absent = sorted(set(range(len(numbers))) - numbers)
    if absent or not numbers:
        raise NotAWanDiTError(f"blocks.{min(absent, default=0)} is missing")
    ffn_dim = _shape(shapes, "blocks.0.ffn.0.weight", rank=2)[0]
    return WanConfig(
        in_dim=in_dim,
        out_dim=head_out // (patch_height * patch_width),
        dim=dim,
        ffn_dim=ffn_dim,
        freq_dim=_shape(shapes, "time_embedding.0.weight", rank=2)[1],
        text_dim=_shape(shapes, "text_embedding.0.weight", rank=2)[1],
        text_len=text_len,
        num_heads=dim // head_dim,
        num_blocks=len(numbers),
        patch_height=patch_height,
        patch_width=patch_width,
        eps=eps,
    )


def size_name(config: WanConfig) -> str:
    """ "1.3B (dim 1536, 30 blocks)"; sizes that nobody published have no name."""
    name = _PUBLISHED.get((config.dim, config.num_blocks), "model")
    return f"{name} (dim {config.dim}, {config.num_blocks} blocks)"


def difference(found: WanConfig, wanted: WanConfig) -> str | None:
    """What a file is and what is wanted, where its shapes say otherwise; None if they agree."""
    if (found.dim, found.num_blocks) != (wanted.dim, wanted.num_blocks):
        return f"is a {size_name(found)}, the recipe wants {size_name(wanted)}"
    invisible = ("num_heads", "text_len", "eps")
    unequal = [
        f"{field.name} {getattr(found, field.name)}, the recipe wants {getattr(wanted, field.name)}"
        for field in fields(WanConfig)
        if field.name not in invisible and getattr(found, field.name) != getattr(wanted, field.name)
    ]
    return f"has {'; '.join(unequal)}" if unequal else None


def _shape(shapes: Shapes, name: str, *, rank: int) -> tuple[int, ...]:
    if name not in shapes:
        raise NotAWanDiTError(f"{name} is missing")
    if len(shapes[name]) != rank or 0 in shapes[name]:
        raise NotAWanDiTError(f"{name} is {shapes[name]}, a Wan DiT has {rank} dimensions there")
    return shapes[name]
