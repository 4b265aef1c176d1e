"""What one tick asks of an executor: rows of host values, and the tensors that begin with them.

A batch is small and holds no tensor, so it can be broadcast: every rank derives its shapes from
it. Knows neither models nor clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from streamgen.cache.placement import Placement
from streamgen.engine.effort import WHOLE, Effort
from streamgen.scheduling.plan import Pass
from streamgen.types import PromptId, SessionId

if TYPE_CHECKING:
    from torch import Tensor

    from streamgen.diffusion.guidance import Guidance
    from streamgen.engine.lanes import Stretch


class SlotKey(NamedTuple):
    """A chunk in flight."""

    session: SessionId
    chunk: int


@dataclass(frozen=True, slots=True)
class Level:
    """A noise level: the timestep in [0, 1000] that the model is told, and sigma in [0, 1]."""

    timestep: float
    sigma: float


@dataclass(frozen=True, slots=True)
class Row:
    """One pass, bound to a noise level, a cache row and cells."""

    where: Pass
    level: Level
    next_sigma: float | None
    """Noise level after this step; None where the result is the clean chunk, or for context."""
    cache_row: int
    placement: Placement
    prompt: PromptId
    seed: int
    guidance: Guidance
    is_context: bool
    """A pass over the clean chunk that only writes the cache."""
    is_negative: bool
    """The unconditional side of guidance: its result guides the row with the same pass."""
    is_final: bool
    """The chunk's last pass: its latents are forgotten after it."""
    recalls: tuple[int, ...] = ()
    """A prelude: a context pass over these finished latent frames, not over the chunk. It runs
    before all other rows of its batch, in a forward of its own."""
    first_frame: int = 0
    """Index in the stream of the chunk's first latent frame."""
    effort: Effort = WHOLE
    """Blocks that it runs through; a prelude runs through all."""
    remembers: tuple[int, ...] = ()
    """After this last pass: the latent frames of the session that later preludes may recall."""
    younger: tuple[Row, ...] = ()
    """Chunks behind this one that share its row of the forward (`joint` mode), oldest first: levels
    and prompts are their own, their placements are their shares of this row's."""
    shared_rows: tuple[int, ...] = ()
    """Cache rows that get `shared_cells` of this one's as soon as the pass is over. Its own, where
    several ranks keep a copy of it."""
    shared_cells: tuple[int, ...] = ()

    @property
    def key(self) -> SlotKey:
        return SlotKey(self.where.session, self.where.chunk)

    @property
    def num_frames(self) -> int:
        """Latent frames of the row, those of younger chunks included."""
        return len(self.placement.write_cells)

    @property
    def chunk_frames(self) -> int:
        """Latent frames of this chunk alone."""
        return self.num_frames - sum(part.num_frames for part in self.younger)

    @property
    def parts(self) -> tuple[Row, ...]:
        """One for each chunk of the row, oldest first: this one, and the younger ones."""
        return (self, *self.younger)


@dataclass(frozen=True, slots=True)
class CellsCopied:
    """Before the forward, copy cells of one cache row to others."""

    source: int
    targets: tuple[int, ...]
    cells: tuple[int, ...]
    to_cells: tuple[int, ...] = ()
    """Where in the targets they go, one for each; empty: to cells of the same numbers."""


@dataclass(frozen=True, slots=True)
class SlotsDropped:
    """Before the forward, forget all chunks in flight of a session."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class PromptDropped:
    """Before the forward, forget the keys and values of a prompt."""

    prompt: PromptId


@dataclass(frozen=True, slots=True)
class LorasScaled:
    """Before the forward, merge LoRAs at these scales (name, scale); others are off."""

    scales: tuple[tuple[str, float], ...]


Control = CellsCopied | SlotsDropped | PromptDropped | LorasScaled


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one forward, and what happens to the executor's memory before it."""

    tick: int
    rows: tuple[Row, ...]
    controls: tuple[Control, ...] = ()

    def timing(self, seconds: float) -> Timing:
        """What it was, beside how long it took."""
        num_frames = sum(row.num_frames for row in self.rows)
        calls = len({(row.num_frames, row.effort) for row in self.rows})
        return Timing(num_frames, calls, seconds)


@dataclass(frozen=True, slots=True, eq=False)
class Started:
    """A chunk as its starter made it; tensors are [F, C, H, W] on the executor's first device."""

    latents_FCHW: Tensor
    """Noisy latents at the start level."""
    condition_FCHW: Tensor | None
    """Latents that the model reads beside the noisy ones; None: zeros, or the model has none."""
    endpoint_FCHW: Tensor | None
    """Clean input latents, where guidance takes its negative side from them."""
    level: Level | None
    """Start level; None for the ladder's first."""
    pts_s: float
    captured_s: float | None
    """When the clip's first picture was captured; None: there is none, so it is made now."""
    num_frames: int
    """Pixel frames to show of it."""
    given_FCHW: Tensor | None = None
    """Clean latents that the chunk has from the start: whatever its passes predict, it ends as
    these, and what it writes into the cache is theirs."""
    repeat: int = 1
    """How often each of them is shown: above 1 at a lower rate."""
    begins_scene: bool = False
    """Nothing of the stream before it belongs to its scene: it attends to nothing before it."""
    is_past: bool = False
    """It was decoded before, and only goes into the cache once more."""
    encoding: Stretch | None = None
    """Encoding of its clip, where the device is still busy with that."""


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """Tensors that enter with a batch: chunks that start in it, prompts that are new."""

    started: Mapping[SlotKey, Started] = field(default_factory=dict[SlotKey, Started])
    prompts: Mapping[PromptId, Tensor] = field(default_factory=dict[PromptId, "Tensor"])
    """Features of the text encoder, [M, D]."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one batch took on the device: latent frames of all rows, in so many forwards."""

    num_frames: int
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Completed:
    """What came of a batch: clean latents of the chunks that finished."""

    batch: Batch
    finished: Mapping[SlotKey, Tensor | None]
    """None from an executor that computes nothing."""
    timings: tuple[Timing, ...] = ()
    """What batches took, this one or earlier ones, and has become known since the last one: a
    device that works by itself is still busy with the newest."""
