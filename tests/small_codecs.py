"""Small codecs of each kind with random weights, for tests.

Shapes: T pixel frames, F latent frames, C channels, H W height and width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from streamgen.models.codec_facts import CodecFacts
from streamgen.models.tiny.codec import TinyCodec
from streamgen.models.wan.tae import TaeCodec, TaeConfig
from streamgen.models.wan.vae import WanVae, load_vae
from streamgen.models.wan.vae_config import WAN_21_VAE, LatentNorm

CPU = torch.device("cpu")
SMALL_VAE = replace(WAN_21_VAE, base_dim=8)
SMALL_TAE = TaeConfig(latent_channels=16, encoder_width=8, decoder_widths=(16, 12, 8, 6))


def tiny_codec() -> TinyCodec:
    codec = TinyCodec()
    randomise(codec, seed=1)
    return codec.eval()


def small_vae(norm: LatentNorm = LatentNorm.STANDARD) -> WanVae:
    """Loaded as a diffusers checkpoint is: random tensors under its names."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    network = AutoencoderKLWan(base_dim=SMALL_VAE.base_dim)
    randomise(network, seed=2)
    return load_vae(
        network.state_dict(),
        source="random",
        config=SMALL_VAE,
        norm=norm,
        device=CPU,
        dtype=torch.float32,
    )


def small_tae() -> TaeCodec:
    codec = TaeCodec(SMALL_TAE)
    randomise(codec, seed=3)
    return codec.eval()


def randomise(module: nn.Module, *, seed: int) -> None:
    """Give every weight a random value, so that signals neither die nor explode; norms about 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("gamma"):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(noise / max(parameter[0].numel(), 1) ** 0.5)


def random_pixels(num_frames: int, facts: CodecFacts, *, seed: int) -> Tensor:
    """Pictures of 2 x 3 latent pixels."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 2 * facts.spatial_stride, 3 * facts.spatial_stride
    return torch.rand(num_frames, 3, height, width, generator=generator) * 2 - 1


def random_latents(num_frames: int, facts: CodecFacts, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_frames, facts.latent_channels, 2, 3, generator=generator)
