"""When blocks should move to other ranks, judged by how long each rank's work really took.

Whatever makes a rank slow counts: an older device, the codec beside its blocks, the embedding, the
head, somebody else's program. Host numbers only; knows no clock and moves nothing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from streamgen.parallel.partition import Layout, StepGroup, balance, imbalance

THRESHOLD = 0.15  # of imbalance, above which blocks move
WINDOW = 12  # batches whose median counts
PATIENCE = 3  # windows in a row that must be uneven
LEAST_GAIN = 0.05  # of the slowest rank's seconds, below which a move is not worth its pause


@dataclass(frozen=True, slots=True)
class RankSpeed:
    """seconds = fixed_s + block_s * blocks, of one rank."""

    fixed_s: float
    block_s: float


class Balancer:
    """Owns what was measured of each rank; `observe` says when to divide anew, and how."""

    def __init__(self, layout: Layout, *, threshold: float = THRESHOLD) -> None:
        """Ranks whose `imbalance` stays above `threshold` are given other blocks."""
        self.layout = layout
        self._threshold = threshold
        self._window: list[deque[tuple[float, ...]]] = [deque() for _ in layout.groups]
        self._uneven = [0 for _ in layout.groups]
        self._measured: dict[int, dict[int, float]] = {}

    def observe(self, seconds: Mapping[int, float]) -> Layout | None:
        """Take in one batch: seconds of the ranks that had work. Returns another layout once
        it is worth having one, and again until `moved` is told."""
        groups = list(self.layout.groups)
        for index, group in enumerate(groups):
            if len(group.ranks) == 1 or not all(rank in seconds for rank in group.ranks):
                continue
            window = self._window[index]
            window.append(tuple(seconds[rank] for rank in group.ranks))
            if len(window) == WINDOW:
                groups[index] = self._judge(index, group)
                window.clear()
        return None if groups == list(self.layout.groups) else Layout(tuple(groups))

    def moved(self, layout: Layout) -> None:
        """Blocks have moved: what was measured before is of other ranges."""
        self.layout = layout
        self._uneven = [0 for _ in layout.groups]
        for window in self._window:
            window.clear()

    def _judge(self, index: int, group: StepGroup) -> StepGroup:
        now_s = [median(column) for column in zip(*self._window[index], strict=True)]
        for rank, blocks, one_s in zip(group.ranks, group.blocks, now_s, strict=True):
            known = self._measured.setdefault(rank, {})
            known.pop(len(blocks), None)
            known[len(blocks)] = one_s  # the newest is last
        if imbalance(now_s) <= self._threshold:
            self._uneven[index] = 0
            return group
        self._uneven[index] += 1
        if self._uneven[index] < PATIENCE:
            return group
        speeds = [self._speed(rank) for rank in group.ranks]
        cut = balance(
            [1.0] * group.blocks[-1].stop,
            [1 / speed.block_s for speed in speeds],
            [speed.fixed_s for speed in speeds],
        )
        expected_s = max(
            speed.fixed_s + speed.block_s * len(piece)
            for speed, piece in zip(speeds, cut, strict=True)
        )
        if expected_s > (1 - LEAST_GAIN) * max(now_s):
            return group
        return replace(group, blocks=cut)

    def _speed(self, rank: int) -> RankSpeed:
        """From the two newest numbers of blocks that it was measured with; with one, all that it
        takes is the blocks'."""
        (blocks, one_s), *older = list(self._measured[rank].items())[::-1]
        if older:
            other_blocks, other_s = older[0]
            block_s = (one_s - other_s) / (blocks - other_blocks)
            fixed_s = one_s - block_s * blocks
            if block_s > 0 and fixed_s >= 0:
                return RankSpeed(fixed_s, block_s)
        return RankSpeed(0.0, max(one_s, 1e-9) / blocks)
