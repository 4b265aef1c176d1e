"""What a range of blocks added to a chunk's tokens, kept for the chunk's next passes.

Allocated once, as the cache of keys and values is, with a place for each cache row: in the modes
that it is for, a row belongs to one chunk at a time. So addresses never change, and a recorded
forward can be replayed.

Legend: B rows of a batch, R cache rows, L tokens of a chunk, D model dim.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Residuals:
    """Owns one sum for each cache row."""

    def __init__(
        self,
        *,
        num_rows: int,
        num_tokens: int,
        dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`num_tokens` of the largest chunk."""
        self._store_RLD = torch.zeros((num_rows, num_tokens, dim), device=device, dtype=dtype)

    def keep(self, rows_B1: Tensor, sum_BLD: Tensor) -> None:
        num_tokens = sum_BLD.shape[1]
        self._store_RLD[:, :num_tokens].index_put_((rows_B1[:, 0],), sum_BLD)

    def read(self, rows_B1: Tensor, num_tokens: int) -> Tensor:
        """What was kept last of these rows, BLD."""
        return self._store_RLD[:, :num_tokens][rows_B1[:, 0]]
