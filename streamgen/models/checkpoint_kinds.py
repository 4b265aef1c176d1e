"""Tells what a file of weights is by the names in it. Strings only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from streamgen.models.wan.names import is_diffusers, strip_prefixes

LORA_KEY = re.compile(
    r"lora_[AB]\b|lora_(?:up|down)\b|\.lora\.(?:up|down)\b|\.diff(?:_b|_m)?$|lora_embedding"
    r"|dora_scale|lora_magnitude|hada_w|lokr_w"
)


class Kind(Enum):
    """What a file holds; the value is how a person would call it."""

    DIT = "Wan diffusion transformer"
    LORA = "LoRA"
    VAE = "Wan VAE"
    TAE = "tiny autoencoder (TAEHV)"
    TEXT_ENCODER = "UMT5 text encoder"
    IMAGE_ENCODER = "CLIP image encoder"
    TINY = "tiny model of this package"
    UNKNOWN = "unknown"


class Naming(Enum):
    """Whose parameter names a DiT has."""

    NATIVE = "original"
    DIFFUSERS = "diffusers"


_SIGNS: dict[Kind, tuple[tuple[str, ...], ...]] = {  # any one group, all of whose names are there
    Kind.TINY: (("dit.patch_embedding.weight", "codec.latent_mean_C"),),
    Kind.VAE: (
        ("encoder.conv1.weight", "decoder.conv1.weight"),
        ("encoder.conv_in.weight", "post_quant_conv.weight"),
    ),
    Kind.TAE: (("encoder.0.weight", "decoder.1.weight"),),
    Kind.TEXT_ENCODER: (
        ("token_embedding.weight", "blocks.0.pos_embedding.embedding.weight"),
        ("shared.weight", "encoder.final_layer_norm.weight"),
        ("encoder.embed_tokens.weight", "encoder.final_layer_norm.weight"),
    ),
    Kind.IMAGE_ENCODER: (
        ("visual.patch_embedding.weight",),
        ("vision_model.embeddings.patch_embedding.weight",),
    ),
    Kind.DIT: (("patch_embedding.weight",), ("blocks.0.self_attn.q.weight",)),
}


def kind_of(names: Iterable[str]) -> Kind:
    """What a file with these names (its own, prefixes included) holds."""
    stripped = {strip_prefixes(name) for name in names}
    if any(LORA_KEY.search(name) for name in stripped):
        return Kind.LORA
    for kind, groups in _SIGNS.items():
        if any(all(sign in stripped for sign in group) for group in groups):
            return kind
    return Kind.UNKNOWN


def naming_of(names: Iterable[str]) -> Naming:
    """Whose names a DiT (or a LoRA for it) uses."""
    if any(is_diffusers(strip_prefixes(name)) for name in names):
        return Naming.DIFFUSERS
    return Naming.NATIVE
