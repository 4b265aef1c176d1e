"""How much of its attention each head gives to the chunk that it is computed for.

Some heads hardly look back; they lose little if they are not let to (Guo et al. 2026, Dummy
Forcing, arXiv:2601.20499, sec. 3). Found out once for each model, on a calibration run, and written
to a file; here only the measuring.

Legend: B rows of a batch, F latent frames of a chunk, L tokens of a chunk, M cached tokens,
N heads, E head dim, G cells that are read.
"""

from __future__ import annotations

import torch
from torch import Tensor


class HeadMeter:
    """Owns the sums of one calibration run, for each layer and head. Not for streams: it computes
    every attention weight."""

    def __init__(self, *, num_layers: int, num_heads: int, num_cells: int) -> None:
        """`num_cells` of a full window: emptier ones are not counted."""
        self._num_cells = num_cells
        self._sums = torch.zeros(num_layers, num_heads, dtype=torch.float64)
        self._counts = torch.zeros(num_layers, dtype=torch.int64)

    def observe(self, layer: int, q_BLNE: Tensor, k_BMNE: Tensor, cells_BF: Tensor) -> None:
        """Queries and keys of one attention, rotated, and the cells that the chunk itself is in."""
        num_tokens = q_BLNE.shape[1] // cells_BF.shape[1]
        cells = torch.arange(k_BMNE.shape[1] // num_tokens, device=cells_BF.device)
        if len(cells) < self._num_cells:
            return
        is_own_BG = (cells[None, :, None] == cells_BF[:, None]).any(-1)
        is_own_BM = is_own_BG.repeat_interleave(num_tokens, dim=1)
        scale = q_BLNE.shape[-1] ** -0.5
        scores_BNLM = torch.einsum("blne,bmne->bnlm", q_BLNE.float() * scale, k_BMNE.float())
        own_BNL = (scores_BNLM.softmax(-1) * is_own_BM[:, None, None]).sum(-1)
        self._sums[layer] += own_BNL.mean(2).sum(0).double().cpu()
        self._counts[layer] += len(q_BLNE)

    def shares(self) -> Tensor:
        """Mean share of attention that stays in the chunk, [layer, head]; 1: it never looks back.

        ValueError if a layer has seen no full window.
        """
        if not bool((self._counts > 0).all()):
            raise ValueError("no full window was seen; play more chunks")
        return self._sums / self._counts[:, None]
