"""Memory of recorded forwards on a CPU: what is not needed at the same time shares it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Memory that a recording takes for some of its calls."""

    first: int
    """The first call that may write to it, by its number."""
    last: int
    """The last one that touches it."""
    tensors: Sequence[Tensor]
    """All that lie in it, whole or in part."""

    @property
    def num_bytes(self) -> int:
        return self.tensors[0].untyped_storage().nbytes()


class Arena:
    """Blocks of memory that recordings of one recorder work in, one recording at a time."""

    def __init__(self) -> None:
        self._blocks: list[torch.UntypedStorage] = []

    @property
    def num_bytes(self) -> int:
        return sum(block.nbytes() for block in self._blocks)

    def move_in(self, lifetimes: Sequence[Lifetime]) -> None:
        """Let tensors lie in blocks from now on: those of one lifetime in one, and in no block
        two whose lifetimes meet. What they held is lost. Lifetimes come by their first call."""
        free = list(range(len(self._blocks)))
        taken: list[tuple[int, int]] = []
        for one in lifetimes:
            while taken and taken[0][0] < one.first:
                free.append(heapq.heappop(taken)[1])
            index = self._block_for(one.num_bytes, free)
            heapq.heappush(taken, (one.last, index))
            for tensor in one.tensors:
                place = (tensor.storage_offset(), tensor.shape, tensor.stride())
                tensor.set_(self._blocks[index], *place)  # pyright: ignore[reportArgumentType]

    def _block_for(self, num_bytes: int, free: list[int]) -> int:
        """The smallest free block that is large enough, taken off the list; else a new one."""
        fitting = [index for index in free if self._blocks[index].nbytes() >= num_bytes]
        if not fitting:
            self._blocks.append(torch.UntypedStorage(num_bytes))
            return len(self._blocks) - 1
        index = min(fitting, key=lambda one: self._blocks[one].nbytes())
        free.remove(index)
        return index
