"""Sizes of the tiny model, and its file: one safetensors with everything, fp16."""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.models.base import Prediction
from streamgen.models.tiny.text import TinyTextEncoder, Vocabulary
from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.dit import WanDiT

TEXT_LEN = 24
TEXT_DIM = 128
TEXT_LAYERS = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """The part of the tiny DiT's shape that a training run may choose."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_blocks: int


SMALL = Sizes(dim=256, ffn_dim=768, num_heads=4, num_blocks=6)
FULL = Sizes(dim=320, ffn_dim=1280, num_heads=5, num_blocks=8)


def dit_config(sizes: Sizes, latent_channels: int) -> WanConfig:
    return WanConfig(
        in_dim=2 * latent_channels,
        out_dim=latent_channels,
        dim=sizes.dim,
        ffn_dim=sizes.ffn_dim,
        freq_dim=64,
        text_dim=TEXT_DIM,
        text_len=TEXT_LEN,
        num_heads=sizes.num_heads,
        num_blocks=sizes.num_blocks,
        patch_height=2,
        patch_width=2,
        eps=1e-6,
    )


def make_dit(config: WanConfig) -> WanDiT:
    """A DiT whose modulation and head start at zero, so that every block begins as identity."""
    model = WanDiT(config, Prediction.CHANGE)
    for module in (model.time_projection[1], model.head.head):
        for parameter in module.parameters():
            parameter.data.zero_()
    for name, parameter in model.named_parameters():
        if name.endswith(".modulation"):
            parameter.data.zero_()
        elif name.endswith("cross_attn.o.weight"):
            parameter.data.mul_(0.1)
    return model


def make_text_encoder(vocabulary: Vocabulary) -> TinyTextEncoder:
    return TinyTextEncoder(vocabulary, dim=TEXT_DIM, num_layers=TEXT_LAYERS, text_len=TEXT_LEN)
