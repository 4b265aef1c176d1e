"""TAEHV for Wan 2.1 (taew2_1): a small autoencoder with the latents of the large one.

2-D convolutions only.  What it knows of time is in its `MemBlock`s, which see their own input of
the frame before, and in two layers that join frames or split them.  Architecture and weights' names
by Ollin Boer Bohan, https://github.com/madebyollin/taehv, taehv.py (MIT); the code is ours.
Latents are the normalised ones, so a mean and a deviation have no place here.  Inside, pixels are
in [0, 1]; outside in [-1, 1], as of every codec.  Knows no files.

Shapes: T pixel frames, F latent frames, G frames at whatever rate a layer runs, C channels
(3 of pixels, 16 of latents), D features, H W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from streamgen.models.codec_facts import CodecFacts
from streamgen.models.tensor_check import check_tensors

FRAMES = 4  # pixel frames a latent frame
LATENT_LIMIT = 3.0  # latents enter the decoder as 3 tanh(x / 3) (taehv.py, class Clamp)
MISFIT = "the file is no tiny autoencoder of Wan 2.1 (taew2_1), or another version of it"

Memory = tuple[Tensor | None, ...]
"""One entry a MemBlock: its last input frame [1, D, H, W]; None, which counts as zeros, before."""


@dataclass(frozen=True, slots=True)
class TaeConfig:
    """Sizes of one autoencoder; no defaults, because each checkpoint states its own."""

    latent_channels: int
    encoder_width: int
    """Features everywhere in the encoder."""
    decoder_widths: tuple[int, int, int, int]
    """Features of the decoder from the coarsest to the finest resolution."""


TAEW_21 = TaeConfig(latent_channels=16, encoder_width=64, decoder_widths=(256, 128, 64, 64))
"""taew2_1.pth, for Wan 2.1 and all models made from it."""


@dataclass(frozen=True, slots=True)
class TaeState:
    """What a stream's encoder and decoder remember; calls replace entries, never write in them."""

    encoder: Memory
    decoder: Memory


class TaeCodec(nn.Module):
    """A VideoCodec; weights only.  The stream's state is the caller's."""

    def __init__(self, config: TaeConfig) -> None:
        super().__init__()
        self.encoder = _encoder_layers(config)
        self.decoder = _decoder_layers(config)
        self._facts = CodecFacts(
            temporal_stride=FRAMES,
            spatial_stride=8,
            latent_channels=config.latent_channels,
            first_frame_is_single=True,
        )

    @property
    def facts(self) -> CodecFacts:
        return self._facts

    def initial_state(self) -> TaeState:
        return TaeState(encoder=_no_memory(self.encoder), decoder=_no_memory(self.decoder))

    def encode(self, pixels_TCHW: Tensor, state: TaeState) -> tuple[Tensor, TaeState]:
        """Latents [F, C, H, W] of pixels in [-1, 1] that continue the stream of the state.

        T is 1 + 4 (F - 1) at the start of a stream, whose first picture is shown to the network
        four times, and 4 F later.  As published (`encode_groups`) the encoder reads three frames
        further than what its latent frame decodes to; a stream cannot wait for them, so here the
        latents show the video three frames late.  Raises ValueError for another T, ConfigError if
        the size is not by 8.
        """
        if state.encoder[0] is not None:
            return self.encode_groups(pixels_TCHW, state)
        if len(pixels_TCHW) % FRAMES != 1:
            raise ValueError(f"{len(pixels_TCHW)} pixel frames, a stream starts with 1 + 4 n")
        held_TCHW = pixels_TCHW[:1].expand(FRAMES - 1, -1, -1, -1)
        return self.encode_groups(torch.cat([held_TCHW, pixels_TCHW]), state)

    def encode_groups(self, pixels_TCHW: Tensor, state: TaeState) -> tuple[Tensor, TaeState]:
        """Latents of whole groups of four frames, the first group too: `encode_video` of taehv.py.

        For clips that are there from the start: latent frame k reads frames 4 k to 4 k + 3, and
        decodes to the last of 4 k - 3 to 4 k.  Raises ValueError if T is not divisible by 4,
        ConfigError if the size is not by 8.
        """
        if not len(pixels_TCHW) or len(pixels_TCHW) % FRAMES:
            raise ValueError(f"{len(pixels_TCHW)} pixel frames do not divide into groups of 4")
        self._facts.latent_size(pixels_TCHW.shape[-2], pixels_TCHW.shape[-1])
        latents_FCHW, memory = _run(self.encoder, (pixels_TCHW + 1) / 2, state.encoder)
        return latents_FCHW, replace(state, encoder=memory)

    def decode(self, latents_FCHW: Tensor, state: TaeState) -> tuple[Tensor, TaeState]:
        """Pixels [T, C, H, W] in [-1, 1] of normalised latents that continue the state's stream.

        The network writes four frames a latent frame; of the stream's first the last one counts
        (taehv.py, `frames_to_trim`).
        """
        is_first = state.decoder[0] is None
        pixels_TCHW, memory = _run(self.decoder, latents_FCHW, state.decoder)
        pixels_TCHW = pixels_TCHW[FRAMES - 1 :] if is_first else pixels_TCHW
        return pixels_TCHW.clamp(0, 1) * 2 - 1, replace(state, decoder=memory)


class MemBlock(nn.Module):
    """A residual block that sees its input of this frame and of the frame before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, frames_GDHW: Tensor, past_GDHW: Tensor) -> Tensor:
        both_GDHW = torch.cat([frames_GDHW, past_GDHW], dim=1)
        return functional.relu(self.conv(both_GDHW) + frames_GDHW)


class TimePool(nn.Module):
    """`stride` frames become one; their features lie one frame behind the other."""

    def __init__(self, width: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width * stride, width, kernel_size=1, bias=False)

    def forward(self, frames_GDHW: Tensor) -> Tensor:
        return self.conv(rearrange(frames_GDHW, "(g s) d h w -> g (s d) h w", s=self.stride))


class TimeGrow(nn.Module):
    """One frame becomes `stride`."""

    def __init__(self, width: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, kernel_size=1, bias=False)

    def forward(self, frames_GDHW: Tensor) -> Tensor:
        return rearrange(self.conv(frames_GDHW), "g (s d) h w -> (g s) d h w", s=self.stride)


class SoftClamp(nn.Module):
    """Keeps latents within 3 deviations, softly."""

    def forward(self, latents_FCHW: Tensor) -> Tensor:
        return torch.tanh(latents_FCHW / LATENT_LIMIT) * LATENT_LIMIT


def load_tae(
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    config: TaeConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> TaeCodec:
    """The codec of a state dict in the published naming, ready for inference.

    `source` is named in errors.  Raises CheckpointError for a tensor that is missing, unexpected or
    misshaped.
    """
    with torch.device("meta"):
        codec = TaeCodec(config)
    expected = {name: tensor.shape for name, tensor in codec.state_dict().items()}
    check_tensors(tensors, expected, source=source, cause=MISFIT)
    codec.load_state_dict(
        {name: tensor.to(device, dtype) for name, tensor in tensors.items()}, assign=True
    )
    return codec.eval().requires_grad_(False)


def _run(layers: nn.Sequential, frames_GDHW: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """All frames of a call through one layer after the other; returns what to remember next."""
    remembered = iter(memory)
    next_memory: list[Tensor] = []
    for layer in layers:
        if isinstance(layer, MemBlock):
            before_1DHW = next(remembered)
            if before_1DHW is None:
                before_1DHW = torch.zeros_like(frames_GDHW[:1])
            past_GDHW = torch.cat([before_1DHW, frames_GDHW[:-1]])
            next_memory.append(frames_GDHW[-1:].clone())
            frames_GDHW = layer(frames_GDHW, past_GDHW)
        else:
            frames_GDHW = layer(frames_GDHW)
    return frames_GDHW, tuple(next_memory)


def _encoder_layers(config: TaeConfig) -> nn.Sequential:
    width = config.encoder_width
    layers: list[nn.Module] = [_conv(3, width), nn.ReLU()]
    for time_stride in (2, 2, 1):
        layers += [
            TimePool(width, stride=time_stride),
            nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1, bias=False),
            *(MemBlock(width) for _ in range(3)),
        ]
    return nn.Sequential(*layers, _conv(width, config.latent_channels))


def _decoder_layers(config: TaeConfig) -> nn.Sequential:
    widths = config.decoder_widths
    layers: list[nn.Module] = [SoftClamp(), _conv(config.latent_channels, widths[0]), nn.ReLU()]
    for width, next_width, time_stride in zip(widths[:3], widths[1:], (1, 2, 2), strict=True):
        layers += [
            *(MemBlock(width) for _ in range(3)),
            nn.Upsample(scale_factor=2),
            TimeGrow(width, stride=time_stride),
            nn.Conv2d(width, next_width, kernel_size=3, padding=1, bias=False),
        ]
    return nn.Sequential(*layers, nn.ReLU(), _conv(widths[3], 3))


def _conv(num_in: int, num_out: int) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, kernel_size=3, padding=1)


def _no_memory(layers: nn.Sequential) -> Memory:
    return (None,) * sum(isinstance(layer, MemBlock) for layer in layers)
