"""The small causal codec of the tiny model: 4 pixel frames of 16x16-pixel cells <-> 64 numbers.

Both directions are a linear space-time transform (at the start of training the principal
components of 4x16x16x3 pixels) plus a convolutional branch that adds what no linear map can.
The encoder has no memory; the decoder also sees the latent frame before, which is the whole
streaming state.  Knows no files and no training.

Shapes: B clips, T pixel frames, F latent frames, G latent frames of all clips in one axis (B F),
C channels (3 of pixels, 64 of latents), D features, H W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from streamgen.models.codec_facts import CodecFacts

FRAMES = 4  # pixel frames a latent frame
CELL = 16  # side of the square of pixels behind one latent pixel
LATENT_CHANNELS = 64
PATCH = 4  # side of the square of pixels behind one feature at the finest resolution of a branch
CELL_VALUES = 3 * FRAMES * CELL * CELL
PATCH_VALUES = 3 * FRAMES * PATCH * PATCH


@dataclass(frozen=True, slots=True)
class CodecState:
    """The last latent frame that was decoded, [C, H, W]; None at the start of a stream."""

    previous_CHW: Tensor | None


class TinyCodec(nn.Module):
    """Weights of encoder and decoder, and the statistics by which latents are normalised.

    A latent is (encoded - mean) * scale, so that every channel is centred and the variance,
    averaged over channels, is 1; loud channels stay louder than quiet ones.
    Any height and width divisible by 16 work; T is always 4 F.
    """

    facts = CodecFacts(
        temporal_stride=FRAMES,
        spatial_stride=CELL,
        latent_channels=LATENT_CHANNELS,
        first_frame_is_single=False,
    )

    latent_mean_C: Tensor
    latent_scale_C: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.register_buffer("latent_mean_C", torch.zeros(LATENT_CHANNELS))
        self.register_buffer("latent_scale_C", torch.ones(LATENT_CHANNELS))

    def initial_state(self) -> CodecState:
        return CodecState(previous_CHW=None)

    def encode(self, pixels_TCHW: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Latents [F, C, H, W] of pixels in [-1, 1]; the encoder has no memory: the state is kept.

        Raises ValueError if T is not divisible by 4, ConfigError if the size is not by 16.
        """
        return self.encode_clips(pixels_TCHW[None])[0], state

    def decode(self, latents_FCHW: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Pixels [T, C, H, W] in [-1, 1] of latents that continue the stream of the state."""
        encoded_FCHW = self._denormalise(latents_FCHW)
        if state.previous_CHW is None:
            first_CHW = torch.zeros_like(encoded_FCHW[0])
        else:
            first_CHW = self._denormalise(state.previous_CHW)
        previous_FCHW = torch.cat([first_CHW[None], encoded_FCHW[:-1]])
        pixels_TCHW = self.decoder(encoded_FCHW, previous_FCHW)
        return pixels_TCHW.clamp_(-1, 1), CodecState(previous_CHW=latents_FCHW[-1])

    def encode_clips(self, pixels_BTCHW: Tensor) -> Tensor:
        """Latents [B, F, C, H, W] of whole clips, for training: `encode` of each clip."""
        num_clips, num_frames, _, height, width = pixels_BTCHW.shape
        if num_frames % FRAMES:
            raise ValueError(f"{num_frames} pixel frames do not divide into groups of {FRAMES}")
        self.facts.latent_size(height, width)
        encoded_GCHW = self.encoder(rearrange(pixels_BTCHW, "b t c h w -> (b t) c h w"))
        mean_C11, scale_C11 = self.latent_mean_C[:, None, None], self.latent_scale_C[:, None, None]
        latents_GCHW = (encoded_GCHW - mean_C11) * scale_C11
        return rearrange(latents_GCHW, "(b f) c h w -> b f c h w", b=num_clips)

    def decode_clips(self, latents_BFCHW: Tensor) -> Tensor:
        """Pixels [B, T, C, H, W] of whole clips from their starts, for training: not clamped."""
        encoded_BFCHW = self._denormalise(latents_BFCHW)
        start_BFCHW = torch.zeros_like(encoded_BFCHW[:, :1])
        previous_BFCHW = torch.cat([start_BFCHW, encoded_BFCHW[:, :-1]], dim=1)
        pixels_GTCHW = self.decoder(encoded_BFCHW.flatten(0, 1), previous_BFCHW.flatten(0, 1))
        return rearrange(pixels_GTCHW, "(b t) c h w -> b t c h w", b=len(latents_BFCHW))

    def _denormalise(self, latents_CHW: Tensor) -> Tensor:
        """Undo the normalisation; any leading axes."""
        return latents_CHW / self.latent_scale_C[:, None, None] + self.latent_mean_C[:, None, None]


class Encoder(nn.Module):
    """Pixels of many groups of 4 frames -> one latent frame a group, not yet normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Conv2d(CELL_VALUES, LATENT_CHANNELS, kernel_size=1)
        self.stem = nn.Conv2d(PATCH_VALUES, 64, kernel_size=1)
        self.down_1 = nn.Conv2d(64, 96, kernel_size=3, stride=2, padding=1)
        self.block = ResidualBlock(96)
        self.down_2 = nn.Conv2d(96, 128, kernel_size=3, stride=2, padding=1)
        self.out = _zero(nn.Conv2d(128, LATENT_CHANNELS, kernel_size=1))

    def forward(self, pixels_TCHW: Tensor) -> Tensor:
        hidden_GDHW = functional.silu(self.stem(fold_pixels(pixels_TCHW, side=PATCH)))
        hidden_GDHW = functional.silu(self.block(self.down_1(hidden_GDHW)))
        hidden_GDHW = self.down_2(hidden_GDHW)
        linear_GCHW = self.transform(fold_pixels(pixels_TCHW, side=CELL))
        return linear_GCHW + self.out(functional.silu(hidden_GDHW))


class Decoder(nn.Module):
    """A latent frame and the one before it, neither normalised -> 4 pixel frames."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Conv2d(LATENT_CHANNELS, CELL_VALUES, kernel_size=1)
        self.stem = nn.Conv2d(2 * LATENT_CHANNELS, 192, kernel_size=3, padding=1)
        self.coarse = nn.Sequential(ResidualBlock(192), ResidualBlock(192))
        self.up_1 = nn.Conv2d(192, 4 * 96, kernel_size=1)
        self.middle = nn.Sequential(ResidualBlock(96), ResidualBlock(96))
        self.up_2 = nn.Conv2d(96, 4 * 48, kernel_size=1)
        self.fine = ResidualBlock(48)
        self.out = _zero(nn.Conv2d(48, PATCH_VALUES, kernel_size=3, padding=1))

    def forward(self, encoded_GCHW: Tensor, previous_GCHW: Tensor) -> Tensor:
        both_GDHW = torch.cat([encoded_GCHW, previous_GCHW], dim=1)
        hidden_GDHW = self.coarse(
            self.stem(both_GDHW.contiguous(memory_format=torch.channels_last))
        )
        hidden_GDHW = self.middle(functional.pixel_shuffle(self.up_1(hidden_GDHW), 2))
        hidden_GDHW = self.fine(functional.pixel_shuffle(self.up_2(hidden_GDHW), 2))
        detail_TCHW = unfold_pixels(self.out(functional.silu(hidden_GDHW)), side=PATCH)
        return unfold_pixels(self.transform(encoded_GCHW), side=CELL).add_(detail_TCHW)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity; no normalisation, the second one starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.conv_2 = _zero(nn.Conv2d(width, width, kernel_size=3, padding=1))

    def forward(self, hidden_GDHW: Tensor) -> Tensor:
        inner_GDHW = functional.silu(self.conv_1(functional.silu(hidden_GDHW)))
        return hidden_GDHW + self.conv_2(inner_GDHW)


def fold_pixels(pixels_TCHW: Tensor, *, side: int) -> Tensor:
    """4 frames of side x side pixels become one cell's channels: [G, 4 * 3 * side**2, H, W]."""
    return rearrange(
        pixels_TCHW, "(g t) c (h p) (w q) -> g (t c p q) h w", t=FRAMES, p=side, q=side
    )


def unfold_pixels(cells_GDHW: Tensor, *, side: int) -> Tensor:
    """Undo `fold_pixels`: [G * 4, 3, H * side, W * side]."""
    return rearrange(
        cells_GDHW, "g (t c p q) h w -> (g t) c (h p) (w q)", t=FRAMES, p=side, q=side, c=3
    )


def _zero(convolution: nn.Conv2d) -> nn.Conv2d:
    """Start at zero, so that the branch behind adds nothing before training."""
    nn.init.zeros_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
