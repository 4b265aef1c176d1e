"""The two namings of UMT5's weights, and the sizes that their shapes tell. Names and shapes only.

Published: models_t5_umt5-xxl-enc-bf16.pth and its copies (Wan-Video/Wan2.1, wan/modules/t5.py).
transformers: the `text_encoder` folder of a diffusers layout; what the modules are called here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TOP = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
_BLOCK = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
_PUBLISHED = re.compile(r"blocks\.(\d+)\.(.+)\.weight")
TIED = "encoder.embed_tokens.weight"
"""The token embedding under its second name; files have one of the two, or both."""


@dataclass(frozen=True, slots=True)
class Umt5Sizes:
    """What the shapes of an encoder's weights tell."""

    vocabulary: int
    dim: int
    ffn_dim: int
    num_heads: int
    head_dim: int
    num_layers: int
    num_buckets: int
    """Distances that the relative position bias tells apart."""

    @property
    def num_params(self) -> int:
        attention = 4 * self.dim * self.num_heads * self.head_dim
        attention += self.num_buckets * self.num_heads
        layer = attention + 3 * self.dim * self.ffn_dim + 2 * self.dim
        return self.vocabulary * self.dim + self.num_layers * layer + self.dim


UMT5_XXL = Umt5Sizes(256384, 4096, 10240, 64, 64, 24, 32)
"""What every Wan 2.1 was trained with (Wan-Video/Wan2.1, wan/modules/t5.py, umt5_xxl)."""


def to_transformers(name: str) -> str:
    """transformers' name of a parameter in either naming; names that nobody knows stay."""
    if name == TIED:
        return _TOP["token_embedding.weight"]
    match = _PUBLISHED.fullmatch(name)
    if match and match[2] in _BLOCK:
        return f"encoder.block.{match[1]}.{_BLOCK[match[2]]}.weight"
    return _TOP.get(name, name)


def to_published(name: str) -> str:
    """The published name of a parameter in transformers' naming."""
    for published, theirs in _TOP.items():
        if name == theirs:
            return published
    number, rest = name.removeprefix("encoder.block.").removesuffix(".weight").split(".", 1)
    back = {theirs: published for published, theirs in _BLOCK.items()}
    return f"blocks.{number}.{back[rest]}.weight"


def infer_sizes(shapes: Mapping[str, tuple[int, ...]]) -> Umt5Sizes:
    """Sizes of the encoder that `shapes`, under transformers' names, belong to.

    Raises KeyError for a weight that is missing, ValueError for one that has another rank.
    """
    first = "encoder.block.0.layer."
    vocabulary, dim = shapes["shared.weight"]
    inner, _ = shapes[f"{first}0.SelfAttention.q.weight"]
    num_buckets, num_heads = shapes[f"{first}0.SelfAttention.relative_attention_bias.weight"]
    ffn_dim, _ = shapes[f"{first}1.DenseReluDense.wi_0.weight"]
    numbers = {name.split(".")[2] for name in shapes if name.startswith("encoder.block.")}
    if not num_heads or inner % num_heads:
        raise ValueError(f"{inner} channels of attention are not a multiple of {num_heads} heads")
    return Umt5Sizes(
        vocabulary=vocabulary,
        dim=dim,
        ffn_dim=ffn_dim,
        num_heads=num_heads,
        head_dim=inner // num_heads,
        num_layers=len(numbers),
        num_buckets=num_buckets,
    )
