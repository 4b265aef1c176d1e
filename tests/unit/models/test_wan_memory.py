"""What memory is said to be needed is what real parts take."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from streamgen.models.base import VideoCodec
from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.memory import (
    LatentPicture,
    dit_params,
    prompt_numbers,
    tae_decoder_state,
    tae_encoder_state,
    tae_params,
    vae_decoder_state,
    vae_encoder_state,
    vae_params,
)
from streamgen.models.wan.sizes import PUBLISHED
from streamgen.models.wan.tae import TAEW_21, TaeCodec
from streamgen.models.wan.vae_config import WAN_21_VAE
from tests.checkpoint_files import SMALL
from tests.small_codecs import (
    SMALL_TAE,
    SMALL_VAE,
    random_latents,
    random_pixels,
    small_tae,
    small_vae,
)

PICTURE = LatentPicture(2, 3)  # of random_latents
S = TypeVar("S")


def num_params(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def remembered(memory: tuple[object, ...]) -> int:
    return sum(entry.numel() for entry in memory if isinstance(entry, Tensor))


@pytest.mark.parametrize("config", [*PUBLISHED.values(), SMALL, replace(SMALL, in_dim=36)])
def test_the_parameters_of_a_dit_are_counted_exactly(config) -> None:
    with torch.device("meta"):
        dit = WanDiT(config)
    assert dit_params(config) == num_params(dit)


def test_the_parameters_of_the_codecs_are_counted_exactly() -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        published, tae = AutoencoderKLWan(), TaeCodec(TAEW_21)
    assert vae_params(WAN_21_VAE) == num_params(published)
    assert vae_params(SMALL_VAE) == num_params(small_vae())
    assert tae_params(TAEW_21) == num_params(tae)
    assert tae_params(SMALL_TAE) == num_params(small_tae())


def test_what_the_codecs_remember_is_counted_exactly() -> None:
    """Third call on, for the second latent frame of a stream fills what the first left out."""
    vae, tae = after_three_calls(small_vae()), after_three_calls(small_tae())
    assert vae_encoder_state(SMALL_VAE, PICTURE) == remembered(vae.encoder)
    assert vae_decoder_state(SMALL_VAE, PICTURE) == remembered(vae.decoder)
    assert tae_encoder_state(SMALL_TAE, PICTURE) == remembered(tae.encoder)
    assert tae_decoder_state(SMALL_TAE, PICTURE) == remembered(tae.decoder)


@torch.inference_mode()
def after_three_calls(codec: VideoCodec[S]) -> S:
    state = codec.initial_state()
    for num_frames in (1, 4, 4, 4):
        pixels = random_pixels(num_frames, codec.facts, seed=num_frames)
        _, state = codec.encode(pixels, state)
        _, state = codec.decode(random_latents(1, codec.facts, seed=1), state)
    return state


def test_a_prompt_is_as_large_as_its_keys_and_values() -> None:
    with torch.device("meta"):
        dit = WanDiT(SMALL)
        text = dit.embed_text(torch.zeros(1, 4, SMALL.text_dim))
        kv = [dit.text_kv(index, text) for index in range(SMALL.num_blocks)]
    assert prompt_numbers(SMALL) == sum(one.k_BMNE.numel() + one.v_BMNE.numel() for one in kv)


def test_the_published_sizes_are_what_their_names_say() -> None:
    assert [round(dit_params(config) / 1e9, 1) for config in PUBLISHED.values()] == [1.4, 14.3]
    state = vae_decoder_state(WAN_21_VAE, LatentPicture(60, 104))
    assert state * 2 == pytest.approx(1.89e9, rel=0.01)  # bytes in bfloat16 at 832x480
