"""Cache policies: what a sink is, where it is said to be, what a switch of the prompt does.

Small plug-ins of `RollingWindow`, over the same cells. Pure; host integers only. What each of them
costs is in docs/cache.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamgen.cache.placement import CellsBlended, Edit

REFERENCE_POSITION = 30  # where Live Avatar's reference frame starts (see AheadOfChunk)


class SinkPlace(Protocol):
    """Temporal positions that sink cells are said to have."""

    def positions(self, num_sinks: int, others: Sequence[int], num_new: int) -> tuple[int, ...]:
        """Positions of `num_sinks` cells, given those of all other frames, in order of time.

        The last `num_new` of `others` are the chunk itself, of which no frame is a sink.
        """
        ...


@dataclass(frozen=True, slots=True)
class OwnPlace:
    """Sinks stay at the positions of the frames that they are: 0, 1, ... (StreamingLLM's choice is
    `Positions.WINDOW`; this is what Self-Forcing, LongLive and StreamDiffusionV2 do)."""

    def positions(self, num_sinks: int, others: Sequence[int], num_new: int) -> tuple[int, ...]:
        return tuple(range(num_sinks))


@dataclass(frozen=True, slots=True)
class BeforeOthers:
    """Sinks sit directly before the oldest other frame: the anchor of Rolling Forcing
    (Liu et al. 2025, arXiv:2509.25161; TencentARC/RollingForcing a1477d0)."""

    def positions(self, num_sinks: int, others: Sequence[int], num_new: int) -> tuple[int, ...]:
        first = others[0] - num_sinks
        return tuple(range(first, first + num_sinks))


@dataclass(frozen=True, slots=True)
class WithinReach:
    """Sinks stay where they are until they are `frames` behind the newest frame, then follow it.

    So absolute positions have no horizon: no distance ever exceeds the one that was trained. A
    rule of our own; Live Avatar's (below), looking back.
    """

    frames: int

    def positions(self, num_sinks: int, others: Sequence[int], num_new: int) -> tuple[int, ...]:
        first = max(0, others[-1] - self.frames)
        return tuple(range(first, first + num_sinks))


@dataclass(frozen=True, slots=True)
class AheadOfChunk:
    """Sinks sit `frames` ahead of the chunk: Live Avatar's rolling sink frame.

    max(30, first + frames), 30 being where its reference frame starts (Huang et al. 2025,
    arXiv:2512.04677, sec. 3; Alibaba-Quark/LiveAvatar, causal_model_s2v.py, `cond_k`).
    """

    frames: int

    def positions(self, num_sinks: int, others: Sequence[int], num_new: int) -> tuple[int, ...]:
        first = max(REFERENCE_POSITION, others[-num_new] + self.frames)
        return tuple(range(first, first + num_sinks))


class Eviction(Protocol):
    """What happens to sinks when frames leave the ring."""

    def edits(self, evicted: Sequence[tuple[int, int]], num_sinks: int) -> tuple[Edit, ...]:
        """`evicted` are pairs of frame and cell, oldest first; never empty."""
        ...


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing: what leaves the ring is gone."""

    def edits(self, evicted: Sequence[tuple[int, int]], num_sinks: int) -> tuple[Edit, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class BlendIntoSinks:
    """Sinks become a moving average of everything: sink <- keep * sink + (1 - keep) * evicted.

    EMA-Sink of Reward Forcing (Lu et al. 2025, arXiv:2512.04678, sec. 3.2), keep 0.999 there, with
    as many sinks as a chunk has frames. With more, frame f goes to sink f mod sinks.
    """

    keep: float

    def edits(self, evicted: Sequence[tuple[int, int]], num_sinks: int) -> tuple[Edit, ...]:
        rounds = [evicted[first : first + num_sinks] for first in range(0, len(evicted), num_sinks)]
        return tuple(
            CellsBlended(
                sources=tuple(cell for _, cell in some),
                targets=tuple(frame % num_sinks for frame, _ in some),
                keep=self.keep,
            )
            for some in rounds
        )


@dataclass(frozen=True, slots=True)
class KeepAll:
    """A new prompt changes nothing that is cached."""


@dataclass(frozen=True, slots=True)
class Flush:
    """A new prompt keeps the sinks and the newest `frames` of the ring; the rest is forgotten.

    KV Flush of Infinity-RoPE (Yesiltepe et al. 2025, arXiv:2511.20649, sec. 3.3), 1 sink and 2
    frames there.
    """

    frames: int


@dataclass(frozen=True, slots=True)
class Recache:
    """Before the first chunk of a new prompt, the window is computed anew under that prompt.

    One forward over the latents of the frames in the ring, at the context level, bidirectional
    over sinks and ring; sinks are written anew only while nothing has left the window (Yang et al.
    2025, LongLive, arXiv:2509.22622, sec. 3.1; NVlabs/LongLive v1.0,
    interactive_causal_inference.py).
    """


OnSwitch = KeepAll | Flush | Recache

OWN_PLACE = OwnPlace()
FORGET = Forget()
KEEP_ALL = KeepAll()
