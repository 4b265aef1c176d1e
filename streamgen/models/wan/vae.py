"""The Wan 2.1 video autoencoder: diffusers' modules, our own streaming state.

Every causal convolution remembers the last frames of its input.  diffusers keeps these memories on
its `AutoencoderKLWan` during one call; here they are a value that goes in and comes out, so one set
of weights serves any number of streams.  The first latent frame holds one picture, every further
one four; the encoder therefore takes 1, 4, 4, ... frames, the decoder one latent frame at a time,
and where a stream is cut into calls does not change a bit.
Knows no files; diffusers is an optional package, imported when a VAE is made.

Shapes: B = 1 clip, T pixel frames, F latent frames, C channels (3 of pixels, 16 of latents),
H W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from streamgen.errors import ConfigError, install_command
from streamgen.models.codec_facts import CodecFacts
from streamgen.models.wan.vae_config import LatentNorm, VaeConfig
from streamgen.models.wan.vae_names import match_vae_tensors

Memory = Tensor | str | None
"""What one causal convolution remembers: frames [B, C, 2, H, W]; None before the first call; the
marker "Rep" in a temporal upsampler that has let the stream's first latent frame pass unchanged."""


@dataclass(frozen=True, slots=True)
class WanVaeState:
    """What a stream's encoder and decoder remember, one entry a causal convolution.

    Calls replace entries and never write into a tensor, so an old state stays good.
    """

    encoder: tuple[Memory, ...]
    decoder: tuple[Memory, ...]


class WanVae(nn.Module):
    """A VideoCodec; weights only, under diffusers' names.  The stream's state is the caller's.

    `network` is a diffusers AutoencoderKLWan of the config's sizes, of which the four modules are
    taken.
    """

    latent_mean_C: Tensor
    latent_std_C: Tensor

    def __init__(self, network: Any, config: VaeConfig, norm: LatentNorm) -> None:
        super().__init__()
        self.encoder: nn.Module = network.encoder
        self.quant_conv: nn.Module = network.quant_conv
        self.post_quant_conv: nn.Module = network.post_quant_conv
        self.decoder: nn.Module = network.decoder
        self.norm = norm
        self._facts = config.facts
        self._start = WanVaeState(
            encoder=(None,) * _num_memories(self.encoder),
            decoder=(None,) * _num_memories(self.decoder),
        )
        self.register_buffer("latent_mean_C", torch.tensor(config.latent_mean), persistent=False)
        self.register_buffer("latent_std_C", torch.tensor(config.latent_std), persistent=False)

    @property
    def facts(self) -> CodecFacts:
        return self._facts

    def initial_state(self) -> WanVaeState:
        return self._start

    def encode(self, pixels_TCHW: Tensor, state: WanVaeState) -> tuple[Tensor, WanVaeState]:
        """Latents [F, C, H, W] of pixels in [-1, 1] that continue the stream of the state.

        The mean of the posterior, normalised as `norm` says.  T is 1 + 4 (F - 1) at the start of a
        stream and 4 F later.  Raises ValueError for another T, ConfigError if the size is not by 8.
        """
        is_first = state.encoder[0] is None
        groups = _groups(len(pixels_TCHW), self._facts.temporal_stride, is_first=is_first)
        self._facts.latent_size(pixels_TCHW.shape[-2], pixels_TCHW.shape[-1])
        pixels_BCTHW = rearrange(pixels_TCHW, "t c h w -> 1 c t h w")
        memories = list(state.encoder)
        moments_BCFHW = torch.cat(
            [
                self.quant_conv(
                    self.encoder(pixels_BCTHW[:, :, group], feat_cache=memories, feat_idx=[0])
                )
                for group in groups
            ],
            dim=2,
        )
        mean_BCFHW, _ = moments_BCFHW.chunk(2, dim=1)
        latents_FCHW = rearrange(mean_BCFHW, "1 c f h w -> f c h w")
        if self.norm is LatentNorm.STANDARD:
            latents_FCHW = (latents_FCHW - self._mean_C11) / self._std_C11
        return latents_FCHW, replace(state, encoder=tuple(memories))

    def decode(self, latents_FCHW: Tensor, state: WanVaeState) -> tuple[Tensor, WanVaeState]:
        """Pixels [T, C, H, W] in [-1, 1] of normalised latents that continue the state's stream."""
        is_first = state.decoder[0] is None
        encoded_FCHW = latents_FCHW * self._std_C11 + self._mean_C11
        encoded_BCFHW = rearrange(encoded_FCHW, "f c h w -> 1 c f h w")
        memories = list(state.decoder)
        pixels_BCTHW = torch.cat(
            [
                self.decoder(
                    self.post_quant_conv(encoded_BC1HW),
                    feat_cache=memories,
                    feat_idx=[0],
                    first_chunk=is_first and index == 0,
                )
                for index, encoded_BC1HW in enumerate(encoded_BCFHW.split(1, dim=2))
            ],
            dim=2,
        )
        pixels_TCHW = rearrange(pixels_BCTHW, "1 c t h w -> t c h w")
        return pixels_TCHW.clamp(-1, 1), replace(state, decoder=tuple(memories))

    @property
    def _mean_C11(self) -> Tensor:
        return self.latent_mean_C[:, None, None]

    @property
    def _std_C11(self) -> Tensor:
        return self.latent_std_C[:, None, None]


def load_vae(
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    config: VaeConfig,
    norm: LatentNorm,
    device: torch.device,
    dtype: torch.dtype,
) -> WanVae:
    """The VAE of a state dict in the original or in diffusers' naming, ready for inference.

    `source` is named in errors.  No second copy of the weights is made where device and dtype are
    already right.  Raises CheckpointError for a tensor that is missing, unexpected or misshaped,
    ConfigError if diffusers is not installed.
    """
    network = _empty_network(config)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    own = match_vae_tensors(tensors, expected, num_res_blocks=config.num_res_blocks, source=source)
    network.load_state_dict(
        {name: tensor.to(device, dtype) for name, tensor in own.items()}, assign=True
    )
    return WanVae(network, config, norm).to(device, dtype).eval().requires_grad_(False)


def _empty_network(config: VaeConfig) -> Any:
    """diffusers' autoencoder of these sizes, its weights without memory behind them."""
    try:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    except ImportError as error:
        raise ConfigError(
            f"the Wan VAE needs diffusers ({error}); install it: {install_command('models')}"
        ) from error
    with torch.device("meta"):
        return AutoencoderKLWan(
            base_dim=config.base_dim,
            z_dim=config.latent_channels,
            dim_mult=list(config.dim_mult),
            num_res_blocks=config.num_res_blocks,
            temperal_downsample=list(config.temporal_downsample),
        )


def _num_memories(module: nn.Module) -> int:
    """Causal convolutions inside: as many entries as diffusers' own lists have."""
    return sum(type(inner).__name__ == "WanCausalConv3d" for inner in module.modules())


def _groups(num_frames: int, stride: int, *, is_first: bool) -> list[slice]:
    """The frames that one step of the encoder takes: 1 at a start, `stride` each later.

    Raises ValueError if they do not come out even.
    """
    head = 1 if is_first else 0
    if num_frames < 1 or (num_frames - head) % stride:
        rule = f"1 + {stride} n" if is_first else f"{stride} n"
        raise ValueError(f"{num_frames} pixel frames, this call of the encoder takes {rule}")
    borders = [0, *range(head or stride, num_frames + 1, stride)]
    return [slice(start, end) for start, end in pairwise(borders)]
