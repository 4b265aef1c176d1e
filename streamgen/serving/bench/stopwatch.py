"""A model and a codec that take no time: what is left of a tick is the engine's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from streamgen.models.base import CausalDiT, Conditioning, DiTFacts, LayerKV, TextByBlock, TextKV
from streamgen.models.bundle import ModelBundle
from streamgen.models.codec_facts import CodecFacts
from streamgen.ops.operations import Operations
from streamgen.ops.rope import TokenGrid


def without_arithmetic(bundle: ModelBundle) -> ModelBundle:
    """The same shapes and text encoder; DiT and codec hand out zeros made once."""
    return replace(bundle, dit=StopwatchDiT(bundle.dit), codec=StopwatchCodec(bundle.codec.facts))


class StopwatchDiT:
    """A CausalDiT of another's shapes whose verbs return what lies ready."""

    def __init__(self, model: CausalDiT) -> None:
        self._model = model
        self._results: dict[tuple[int, ...], Tensor] = {}

    @property
    def facts(self) -> DiTFacts:
        return self._model.facts

    def use(self, operations: Operations) -> None:
        """There is nothing to run."""

    def grid(self, height: int, width: int) -> TokenGrid:
        return self._model.grid(height, width)

    def embed(self, latents_BFCHW: Tensor) -> Tensor:
        return latents_BFCHW

    def condition(self, timesteps_BF: Tensor, text: TextByBlock) -> Conditioning:
        return Conditioning(timesteps_BF, timesteps_BF, text)

    def text_kv(self, index: int, text_BMD: Tensor) -> TextKV:
        return self._model.text_kv(index, text_BMD)

    def embed_text(self, text_BMD: Tensor) -> Tensor:
        return self._model.embed_text(text_BMD)

    def block(self, index: int, hidden_BLD: Tensor, cond: Conditioning, kv: LayerKV) -> Tensor:
        return hidden_BLD

    def head(self, hidden_BLD: Tensor, cond: Conditioning, grid: TokenGrid) -> Tensor:
        rows, frames, _, height, width = hidden_BLD.shape  # latents: embed hands them through
        shape = (rows, frames, self.facts.latent_channels, height, width)
        if shape not in self._results:
            self._results[shape] = hidden_BLD.new_zeros(shape)
        return self._results[shape]


@dataclass
class StopwatchCodec:
    """A VideoCodec that draws black; its state is how many latent frames it has seen."""

    facts: CodecFacts

    def initial_state(self) -> int:
        return 0

    def encode(self, pixels_TCHW: Tensor, state: int) -> tuple[Tensor, int]:
        frames = self._latent_frames(len(pixels_TCHW), state)
        height, width = self.facts.latent_size(*pixels_TCHW.shape[-2:])
        shape = (frames, self.facts.latent_channels, height, width)
        return pixels_TCHW.new_zeros(()).expand(shape), state + frames

    def decode(self, latents_FCHW: Tensor, state: int) -> tuple[Tensor, int]:
        frames, _, height, width = latents_FCHW.shape
        num_pixels = self.facts.num_pixel_frames(frames, state == 0)
        stride = self.facts.spatial_stride
        zero = torch.zeros((), device=latents_FCHW.device, dtype=latents_FCHW.dtype)
        pixels_TCHW = zero.expand(num_pixels, 3, height * stride, width * stride)
        return pixels_TCHW, state + frames

    def _latent_frames(self, num_frames: int, state: int) -> int:
        stride = self.facts.temporal_stride
        if state == 0 and self.facts.first_frame_is_single:
            return 1 + (num_frames - 1) // stride
        return num_frames // stride
