"""Sizes and latent statistics of the Wan video autoencoders. Holds numbers only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from streamgen.models.codec_facts import CodecFacts


class LatentNorm(Enum):
    """Where (latent - mean) / std is applied; a checkpoint keeps what it was trained under."""

    STANDARD = "standard"
    """Encode normalises, decode undoes it: Wan 2.1 itself and the Self-Forcing family
    (Wan-Video/Wan2.1, wan/modules/vae.py, `WanVAE_.encode` and `.decode` with `scale`)."""
    RAW_ENCODE = "raw_encode"
    """Encode leaves the mean as it comes out, decode undoes a normalisation that never was:
    StreamDiffusionV2 (chenfengxu714/StreamDiffusionV2 c5a0f20, models/wan/wan_wrapper.py,
    `WanVAEWrapper.stream_encode` with `is_scale=False`, and `stream_decode_to_pixel`)."""


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """Sizes of one autoencoder; no defaults, because each checkpoint states its own."""

    base_dim: int
    """Features at full resolution."""
    latent_channels: int
    dim_mult: tuple[int, ...]
    """Features of each resolution, in base_dim; every further one halves height and width."""
    num_res_blocks: int
    """Residual blocks a resolution in the encoder; the decoder has one more."""
    temporal_downsample: tuple[bool, ...]
    """Which of the halvings halve time too; one entry less than dim_mult."""
    latent_mean: tuple[float, ...]
    """One number a latent channel."""
    latent_std: tuple[float, ...]
    """One number a latent channel, above 0."""

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise ValueError(
                f"{len(self.dim_mult)} resolutions have {len(self.dim_mult) - 1} steps between"
                f" them, temporal_downsample has {len(self.temporal_downsample)} entries"
            )
        if not len(self.latent_mean) == len(self.latent_std) == self.latent_channels:
            raise ValueError(
                f"{self.latent_channels} latent channels, {len(self.latent_mean)} means,"
                f" {len(self.latent_std)} deviations"
            )

    @property
    def facts(self) -> CodecFacts:
        return CodecFacts(
            temporal_stride=2 ** sum(self.temporal_downsample),
            spatial_stride=2 ** len(self.temporal_downsample),
            latent_channels=self.latent_channels,
            first_frame_is_single=True,
        )


# Statistics of the latents as published beside Wan2.1_VAE.pth, 16 channels in order
# (Wan-Video/Wan2.1, wan/modules/vae.py, class WanVAE).
WAN_21_LATENT_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
WAN_21_LATENT_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)

WAN_21_VAE = VaeConfig(
    base_dim=96,
    latent_channels=16,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    temporal_downsample=(False, True, True),
    latent_mean=WAN_21_LATENT_MEAN,
    latent_std=WAN_21_LATENT_STD,
)
"""The autoencoder of Wan 2.1 (and of all models made from it): Wan2.1_VAE.pth."""
