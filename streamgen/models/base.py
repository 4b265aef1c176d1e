"""What the engine asks of a model: three verbs of a DiT, a codec, a text encoder.

Legend: B rows, F latent frames, C channels, H W latent height and width, L tokens, M text tokens,
N heads, E head dim, D model dim, T pixel frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from streamgen.models.codec_facts import CodecFacts
from streamgen.ops.operations import Operations
from streamgen.ops.qkv import QKNorms
from streamgen.ops.rope import TokenGrid


class Prediction(Enum):
    """What the head of a DiT was trained to write."""

    VELOCITY = "velocity"
    """noise - clean (Lipman et al. 2023, arXiv:2210.02747): Wan and all models made from it."""
    CLEAN = "clean"
    """The clean latents themselves."""
    CHANGE = "change"
    """The clean latents less the condition latents, which are zero where there is no condition: a
    restyled picture keeps the details of its input unless the model takes them away."""


@dataclass(frozen=True, slots=True)
class DiTFacts:
    """The numbers that caches, batches and partitions are made from."""

    num_blocks: int
    num_heads: int
    head_dim: int
    latent_channels: int
    condition_channels: int
    text_len: int
    text_dim: int
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class TextKV:
    """Keys and values of the prompt, for one block: [B, M, N, E] each.

    B is the number of rows, or a multiple of it: each equal part of a row's frames then has a
    prompt of its own.
    """

    k_BMNE: Tensor
    v_BMNE: Tensor


TextByBlock = Sequence[TextKV] | Mapping[int, TextKV]


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What every block of one forward shares."""

    time_BFD: Tensor
    """Time embedding, read by the head."""
    modulation_BF6D: Tensor
    """Its projection: shift, scale, gate of self-attention, then of the FFN."""
    text: TextByBlock
    """By a block's number in the whole model; a stage has those of its own blocks."""
    parts: Mapping[int, Tensor] = field(default_factory=dict[int, Tensor])
    """What blocks make of the modulation, by their numbers, BF6D. Made with the rest, and so before
    any forward: one that is recorded reads it, and a replay at another timestep another's."""


class LayerKV(Protocol):
    """Where one block's self-attention finds its keys and values.

    The one seam between weights and memory: an implementation rotates, stores and looks up as it
    likes, so the same block runs over a cache, over a full sequence, or under training.
    """

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        """Take normalised, unrotated q and k of the new tokens; return attention's output, BLNE."""
        ...


@runtime_checkable
class ProjectedLayerKV(LayerKV, Protocol):
    """A LayerKV that also takes q and k before their norms, so that one kernel does it all."""

    def attend_projected(
        self, q_BLD: Tensor, k_BLD: Tensor, v_BLD: Tensor, norms: QKNorms
    ) -> Tensor:
        """As `attend` of the normalised q and k; BLNE."""
        ...


class CausalDiT(Protocol):
    """A diffusion transformer in three verbs; a stage is a slice of the middle one."""

    @property
    def facts(self) -> DiTFacts: ...

    def use(self, operations: Operations) -> None:
        """Run on these operations from now on; on the definitions until it is called."""
        ...

    def grid(self, height: int, width: int) -> TokenGrid:
        """Token grid of one latent frame of height x width latents."""
        ...

    def embed(self, latents_BFCHW: Tensor) -> Tensor:
        """Latents (condition channels behind them) to tokens, BLD."""
        ...

    def condition(self, timesteps_BF: Tensor, text: TextByBlock) -> Conditioning: ...

    def text_kv(self, index: int, text_BMD: Tensor) -> TextKV:
        """Keys and values of a prompt's features for one block; run once a prompt."""
        ...

    def embed_text(self, text_BMD: Tensor) -> Tensor:
        """Features of the text encoder, padded with zeros to text_len, to the model's width."""
        ...

    def block(self, index: int, hidden_BLD: Tensor, cond: Conditioning, kv: LayerKV) -> Tensor: ...

    def head(self, hidden_BLD: Tensor, cond: Conditioning, grid: TokenGrid) -> Tensor:
        """Tokens to BFCHW: a velocity or clean latents, as `facts.prediction` says."""
        ...


State = TypeVar("State")
"""Streaming state of one kind of codec: opaque to its users, replaced at every call."""


class VideoCodec(Protocol[State]):
    """The video autoencoder. Pixels are floats in [-1, 1]; chunked calls equal one long call."""

    @property
    def facts(self) -> CodecFacts: ...

    def initial_state(self) -> State: ...

    def encode(self, pixels_TCHW: Tensor, state: State) -> tuple[Tensor, State]: ...

    def decode(self, latents_FCHW: Tensor, state: State) -> tuple[Tensor, State]: ...


class TextEncoder(Protocol):
    """Turns a prompt into features [M, text_dim] with M <= text_len."""

    @property
    def takes_long(self) -> bool:
        """Whether encoding a prompt would be felt as a pause: it is then done on another thread."""
        ...

    def encode(self, prompt: str) -> Tensor: ...

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Words that will have no effect; empty for encoders with an open vocabulary."""
        ...
