"""What codecs are said to cost is held to the arithmetic of the codecs themselves. Nothing runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from streamgen.models.wan.tae import TAEW_21, TaeCodec
from streamgen.models.wan.vae import WanVae
from streamgen.models.wan.vae_config import WAN_21_VAE, LatentNorm
from streamgen.scheduling import codec_costs

HEIGHT, WIDTH = 480, 832
CLIP, LATENT = (4, 3, HEIGHT, WIDTH), (1, 16, HEIGHT // 8, WIDTH // 8)


def tflop_a_picture(codec: Any) -> tuple[float, float]:
    """To encode and to decode, once a stream has begun."""
    state = codec.initial_state()
    with torch.no_grad(), torch.device("meta"):
        _, state = codec.encode(torch.zeros(1, *CLIP[1:]), state)
        with FlopCounterMode(display=False) as encoding:
            codec.encode(torch.zeros(CLIP), state)
        _, state = codec.decode(torch.zeros(LATENT), codec.initial_state())
        _, state = codec.decode(torch.zeros(LATENT), state)
        with FlopCounterMode(display=False) as decoding:
            codec.decode(torch.zeros(LATENT), state)
    return encoding.get_total_flops() / 4e12, decoding.get_total_flops() / 4e12


def test_the_full_codec_takes_the_arithmetic_that_is_stated() -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        codec = WanVae(AutoencoderKLWan(), WAN_21_VAE, LatentNorm.STANDARD).eval()
    assert tflop_a_picture(codec) == pytest.approx(codec_costs.VAE_TFLOP, rel=0.01)


def test_the_tiny_codec_takes_the_arithmetic_that_is_stated() -> None:
    with torch.device("meta"):
        codec = TaeCodec(TAEW_21).eval()
    assert tflop_a_picture(codec) == pytest.approx(codec_costs.TAEHV_TFLOP, rel=0.01)


def test_no_codec_is_said_to_be_cheaper_beside_the_full_one_than_its_arithmetic() -> None:
    full_encode, full_decode = codec_costs.VAE_TFLOP
    tiny_encode, tiny_decode = codec_costs.TAEHV_TFLOP
    assert full_encode / full_decode <= codec_costs.ENCODE_SHARE
    assert tiny_encode / full_encode <= codec_costs.TINY_ENCODE_SHARE
    assert tiny_decode / full_decode <= codec_costs.TINY_DECODE_SHARE
    assert full_decode * 1e12 / (0.5 * 989e12) < codec_costs.DECODE_S
