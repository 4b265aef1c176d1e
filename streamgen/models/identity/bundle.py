"""The model that draws nothing: what goes in comes out, through the whole engine.

It shows what a camera, a network and an output cost without a model, and that all of them work.
Its latents are the pixels themselves, 2x2 of them side by side in the channels, and its DiT has no
block: it hands its condition through. Noise on the condition (strength) is seen as grain.

Legend: B rows, F latent frames, C channels, H W latent height and width, L tokens, M text tokens,
D model dim, T pixel frames.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from streamgen.errors import CheckpointError
from streamgen.models.base import (
    Conditioning,
    DiTFacts,
    LayerKV,
    Prediction,
    TextByBlock,
    TextKV,
)
from streamgen.models.bundle import ModelBundle
from streamgen.models.codec_facts import CodecFacts
from streamgen.ops.operations import Operations
from streamgen.ops.rope import TokenGrid

STRIDE = 2  # so pictures of even sizes, as all outputs want them
CHANNELS = 3 * STRIDE**2
KNOWLEDGE = "gives every picture back as it came, whatever the words; strength puts grain on it."


class IdentityCodec:
    """Pixels as latents, nothing lost; its streaming state is None."""

    facts = CodecFacts(
        temporal_stride=1,
        spatial_stride=STRIDE,
        latent_channels=CHANNELS,
        first_frame_is_single=False,
    )

    def initial_state(self) -> None:
        return None

    def encode(self, pixels_TCHW: Tensor, state: None) -> tuple[Tensor, None]:
        return pixel_unshuffle(pixels_TCHW, STRIDE), state

    def decode(self, latents_FCHW: Tensor, state: None) -> tuple[Tensor, None]:
        return pixel_shuffle(latents_FCHW, STRIDE), state


class IdentityDiT:
    """No block, no weights; predicts the condition."""

    facts = DiTFacts(
        num_blocks=0,
        num_heads=1,
        head_dim=6,  # the least that positions in time, height and width can be put into
        latent_channels=CHANNELS,
        condition_channels=CHANNELS,
        text_len=1,
        text_dim=1,
        prediction=Prediction.CLEAN,
    )

    def use(self, operations: Operations) -> None:
        """There is nothing to run."""

    def grid(self, height: int, width: int) -> TokenGrid:
        return TokenGrid(height, width)

    def embed(self, latents_BFCHW: Tensor) -> Tensor:
        return rearrange(latents_BFCHW[:, :, CHANNELS:], "b f c h w -> b (f h w) c")

    def condition(self, timesteps_BF: Tensor, text: TextByBlock) -> Conditioning:
        time_BFD = timesteps_BF[..., None]
        return Conditioning(time_BFD, time_BFD[..., None, :].expand(-1, -1, 6, -1), text)

    def text_kv(self, index: int, text_BMD: Tensor) -> TextKV:
        raise ValueError(f"there is no block {index}")

    def embed_text(self, text_BMD: Tensor) -> Tensor:
        return text_BMD

    def block(self, index: int, hidden_BLD: Tensor, cond: Conditioning, kv: LayerKV) -> Tensor:
        raise ValueError(f"there is no block {index}")

    def head(self, hidden_BLD: Tensor, cond: Conditioning, grid: TokenGrid) -> Tensor:
        return rearrange(
            hidden_BLD, "b (f h w) c -> b f c h w", h=grid.height, w=grid.width
        ).contiguous()


class AnyWords:
    """Takes every prompt; each has the same features."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._features_MD = torch.ones((1, 1), device=device, dtype=dtype)

    def encode(self, prompt: str) -> Tensor:
        return self._features_MD

    takes_long = False

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return ()


def load_identity(weights: str, *, device: torch.device, dtype: torch.dtype) -> ModelBundle:
    """There are no weights to load. Raises CheckpointError if a file is named all the same."""
    if weights != "package":
        raise CheckpointError(f'the identity model has no weights; write "package", not {weights}')
    return ModelBundle(IdentityDiT(), IdentityCodec(), AnyWords(device, dtype), KNOWLEDGE)
