"""Adaptive sinks: a new frame that resembles no sink takes the cell of the one least like it.

The only decision about the cache that depends on what the model computed. It is taken on the
device, in each layer and row for itself, as StreamDiffusionV2 does: nothing waits for it, nothing
is sent to the host, and a stage needs to know nothing of the others. The host keeps counting as if
no sink were ever replaced; the device knows by how many replacements the ring is late.

    a_i = (cos(mean K_i, mean K_new) + cos(mean V_i, mean V_new)) / 2, means over a frame's tokens
    min a_i < threshold: the frame goes to sink argmin a_i, and nothing leaves the ring
    otherwise: it goes to the ring's oldest cell

Feng et al. 2025, arXiv:2511.07399, sec. 4.2; chenfengxu714/StreamDiffusionV2 c5a0f20,
models/wan/causal_model.py:271-345. There a comparison with cells that are still empty replaces a
sink at the first call; here nothing is compared before the window is full.

Legend: R cache rows, G cells, B rows of a batch, F latent frames (here 1), S tokens of a frame,
N heads, E head dim, K sinks.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as functional
from torch import Tensor

from streamgen.cache.cells import LayerCells, Target


class AdaptiveSinks:
    """Owns, for each layer and cache row of a stage, how many sinks have been replaced so far."""

    def __init__(
        self,
        *,
        sinks: int,
        ring: int,
        threshold: float,
        num_layers: int,
        num_rows: int,
        device: torch.device,
    ) -> None:
        self._sinks = sinks
        self._ring = ring
        self._threshold = threshold
        self._num_replaced_LR = torch.zeros(
            (num_layers, num_rows), dtype=torch.int64, device=device
        )

    def choose(
        self,
        layer: int,
        may_replace_B1: Tensor,
        cells: LayerCells,
        target: Target,
        k_BLNE: Tensor,
        v_BLNE: Tensor,
    ) -> Tensor:
        """The cells to write to, [B, F]. Where nothing may be replaced (the window still fills),
        the proposed ones, and the row's count begins anew."""
        num_replaced_R = self._num_replaced_LR[layer]
        late_B1 = num_replaced_R[target.rows_B1] * may_replace_B1
        in_ring_BF = self._sinks + (target.cells_BF - self._sinks - late_B1) % self._ring
        likeness_BK = self._likeness(cells, target, k_BLNE, v_BLNE)
        is_unlike_B1 = may_replace_B1 & (likeness_BK.amin(1, keepdim=True) < self._threshold)
        num_replaced_R[target.rows_B1] = late_B1 + is_unlike_B1
        chosen_BF = torch.where(is_unlike_B1, likeness_BK.argmin(1, keepdim=True), in_ring_BF)
        return torch.where(may_replace_B1, chosen_BF, target.cells_BF)

    def _likeness(
        self, cells: LayerCells, target: Target, k_BLNE: Tensor, v_BLNE: Tensor
    ) -> Tensor:
        """a_i of the module's head, [B, K], of the chunk's first frame."""
        sinks_1K = torch.arange(self._sinks, device=target.cells_BF.device)[None]
        stored = cells.gathered(replace(target, cells_BF=sinks_1K))
        num_tokens = stored[0].shape[2]
        keys_BK, values_BK = (
            functional.cosine_similarity(
                stored_BKSNE.float().mean(2).flatten(2),
                new_BLNE[:, :num_tokens].float().mean(1, keepdim=True).flatten(2),
                dim=-1,
            )
            for stored_BKSNE, new_BLNE in zip(stored, (k_BLNE, v_BLNE), strict=True)
        )
        return (keys_BK + values_BK) / 2
