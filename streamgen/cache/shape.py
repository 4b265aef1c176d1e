"""How large a KV cache is. Host integers, and the size of a number."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from streamgen.ops.quantise import KVFormat
from streamgen.ops.rope import TokenGrid


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Sizes of a KV cache."""

    num_layers: int
    num_rows: int
    num_cells: int
    num_heads: int
    head_dim: int
    grid: TokenGrid

    def layers(self, count: int) -> tuple[int, ...]:
        """Shape of what `KVCache.read_layers` gives of so many layers."""
        cells = self.num_rows, self.num_cells, self.grid.num_tokens
        return count, 2, *cells, self.num_heads, self.head_dim

    def size_bytes(self, dtype: torch.dtype, kind: KVFormat = KVFormat.FULL) -> int:
        """Memory that the cache takes, scales included."""
        tokens = self.num_layers * 2 * self.num_rows * self.num_cells * self.grid.num_tokens
        return tokens * self.num_heads * kind.bytes_a_head(self.head_dim, dtype.itemsize)
