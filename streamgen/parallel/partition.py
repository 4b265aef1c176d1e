"""Who owns what: ranges of noise levels and of blocks, one of each to a rank. Host integers only.

A group of ranks owns some passes of the ladder; inside a group each rank owns some blocks. One
group is the split by layers, groups of one rank are the split by steps, anything else is a mix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from streamgen.errors import ConfigError


@dataclass(frozen=True)
class StepGroup:
    """Ranks that carry the same passes, block by block; together they hold the whole model."""

    passes: range
    """Steps of the ladder, the clean-context pass behind the last one."""
    ranks: tuple[int, ...]
    """In the order in which tokens travel."""
    blocks: tuple[range, ...]
    """Blocks of each of `ranks`."""

    @property
    def first(self) -> int:
        return self.ranks[0]

    @property
    def last(self) -> int:
        return self.ranks[-1]

    @property
    def ends(self) -> tuple[int, ...]:
        """Ranks that see latents: tokens begin at the first and end at the last."""
        return tuple(dict.fromkeys((self.first, self.last)))


@dataclass(frozen=True)
class Layout:
    """All groups, in the order of their passes."""

    groups: tuple[StepGroup, ...]

    @property
    def num_ranks(self) -> int:
        return sum(len(group.ranks) for group in self.groups)

    @property
    def num_stages(self) -> int:
        """Of the longest group: as many batches keep its ranks busy."""
        return max(len(group.ranks) for group in self.groups)

    @cached_property
    def latent_ranks(self) -> tuple[int, ...]:
        """Ranks that keep the latents in flight: the ends of all groups."""
        return tuple(rank for group in self.groups for rank in group.ends)

    def group_of(self, step: int) -> int:
        """Index of the group that carries a pass."""
        for index, group in enumerate(self.groups):
            if step in group.passes:
                return index
        raise ValueError(f"no group carries pass {step}")

    def place(self, rank: int) -> tuple[int, int]:
        """A rank's group, and its stage in there."""
        for index, group in enumerate(self.groups):
            if rank in group.ranks:
                return index, group.ranks.index(rank)
        raise ValueError(f"there is no rank {rank}")

    def blocks(self, rank: int) -> range:
        group, stage = self.place(rank)
        return self.groups[group].blocks[stage]

    def __str__(self) -> str:
        return ", ".join(
            f"rank {rank}: passes {_shown(group.passes)}, blocks {_shown(blocks)}"
            for group in self.groups
            for rank, blocks in zip(group.ranks, group.blocks, strict=True)
        )


def stages_of(split: str, num_ranks: int) -> tuple[int, ...]:
    """Ranks of each group: what "layers", "steps" or a mix such as "2+1" means for so many ranks.

    Raises ConfigError if it cannot mean anything.
    """
    if split == "layers":
        return (num_ranks,)
    if split == "steps":
        return (1,) * num_ranks
    parts = split.split("+")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(
            f"split {split!r} is not known; write layers, steps, or the ranks of each group of "
            f"steps as 2+1"
        )
    stages = tuple(int(part) for part in parts)
    if sum(stages) != num_ranks:
        raise ConfigError(
            f"split {split} is for {sum(stages)} ranks and there are {num_ranks}; "
            f"change one of them"
        )
    return stages


def make_layout(
    split: str,
    num_ranks: int,
    *,
    num_blocks: int,
    num_passes: int,
    costs: Sequence[float] | None = None,
) -> Layout:
    """Divide a model among ranks.

    `costs` are seconds of every block, all alike by default. Raises ConfigError if there is not
    enough to divide.
    """
    if num_ranks < 1:
        raise ConfigError(f"{num_ranks} ranks run nothing; ask for at least 1")
    stages = stages_of(split, num_ranks)
    if num_blocks == 0:
        raise ConfigError("the model has no blocks to divide; run it in one process")
    if max(stages) > num_blocks:
        raise ConfigError(
            f"{max(stages)} ranks cannot share {num_blocks} blocks; use at most {num_blocks} "
            f"ranks, or divide by steps"
        )
    if len(stages) > num_passes:
        raise ConfigError(
            f"{len(stages)} groups of ranks cannot share {num_passes} passes of the ladder; use "
            f"at most {num_passes} groups, more denoise steps, or divide by layers"
        )
    block_costs = [1.0] * num_blocks if costs is None else list(costs)
    passes = balance([1.0] * num_passes, [float(count) for count in stages])
    groups: list[StepGroup] = []
    rank = 0
    for count, owned in zip(stages, passes, strict=True):
        ranks = tuple(range(rank, rank + count))
        groups.append(StepGroup(owned, ranks, balance(block_costs, [1.0] * count)))
        rank += count
    return Layout(tuple(groups))


def balance(
    costs: Sequence[float], speeds: Sequence[float], fixed: Sequence[float] | None = None
) -> tuple[range, ...]:
    """Cut a row of costs into one piece a worker, none empty, so that the slowest is fastest.

    A worker takes `fixed` + the sum of its costs / its speed. Exact, by dynamic programming over
    (worker, cut); among equally good cuts the most even one, by the sum of squares.
    """
    num_costs, num_workers = len(costs), len(speeds)
    if num_workers > num_costs:
        raise ValueError(f"{num_costs} pieces do not suffice for {num_workers} workers")
    fixed = fixed or [0.0] * num_workers
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)

    def seconds(worker: int, begin: int, end: int) -> float:
        return fixed[worker] + (sums[end] - sums[begin]) / speeds[worker]

    def cut(join: Callable[[float, float], float]) -> tuple[float, tuple[range, ...]]:
        best = [[inf] * (num_costs + 1) for _ in range(num_workers)]
        cuts = [[0] * (num_costs + 1) for _ in range(num_workers)]
        for end in range(1, num_costs + 1):
            best[0][end] = join(0.0, seconds(0, 0, end))
        for worker in range(1, num_workers):
            for end in range(worker + 1, num_costs + 1):
                for begin in range(worker, end):
                    joined = join(best[worker - 1][begin], seconds(worker, begin, end))
                    if joined < best[worker][end]:
                        best[worker][end], cuts[worker][end] = joined, begin
        pieces: list[range] = []
        end = num_costs
        for worker in reversed(range(num_workers)):
            pieces.append(range(cuts[worker][end], end))
            end = cuts[worker][end]
        return best[-1][-1], tuple(reversed(pieces))

    slowest, _ = cut(max)
    bound = slowest * (1 + 1e-9)
    return cut(lambda before, one: before + one**2 if one <= bound else inf)[1]


def imbalance(seconds: Sequence[float]) -> float:
    """How much longer the slowest takes than the mean: 0 where all are alike."""
    mean = sum(seconds) / len(seconds)
    return max(seconds) / mean - 1 if mean > 0 else 0.0


def _shown(indices: range) -> str:
    if len(indices) == 1:
        return str(indices.start)
    return f"{indices.start}-{indices.stop - 1}"
