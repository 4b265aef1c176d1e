"""From projections to the ring: norm, rotate, store; and from the ring to what attention reads.

Knows rows and cells as indices that were made elsewhere; owns no memory.

Legend: B rows of a batch, F latent frames of a chunk, S tokens of a latent frame, L = F * S,
R cache rows, G cells, M = G' * S cached tokens of G' cells, N heads, E head dim, D = N * E,
P = E / 2 pairs of a head's channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from streamgen.ops.modulation import rms_norm
from streamgen.ops.rope import RopeTable, rotate


@dataclass(frozen=True, slots=True)
class QKNorms:
    """Weights of the RMSNorms over the full model dim that queries and keys pass."""

    q_D: Tensor
    k_D: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Ring:
    """One layer's keys and values, and where the rows of a batch write into them."""

    keys_RGSNE: Tensor
    values_RGSNE: Tensor
    rows_B1: Tensor
    cells_BF: Tensor


def write(ring: Ring, k_BLNE: Tensor, v_BLNE: Tensor) -> None:
    """Store the keys and values of every row's chunk in its cells."""
    frames = ring.cells_BF.shape[1]
    ring.keys_RGSNE[ring.rows_B1, ring.cells_BF] = k_BLNE.unflatten(1, (frames, -1))
    ring.values_RGSNE[ring.rows_B1, ring.cells_BF] = v_BLNE.unflatten(1, (frames, -1))


def norm_rotate_write(
    q_BLD: Tensor,
    k_BLD: Tensor,
    v_BLD: Tensor,
    norms: QKNorms,
    table: RopeTable,
    ring: Ring,
    rotates_keys: bool,
) -> Tensor:
    """Normalise q and k, rotate q (and k, if it is stored rotated), store k and v; returns q, BLNE.

    The tail of the projections of Wan 2.1's self-attention (wan/modules/model.py,
    WanSelfAttention.forward) and the write into the rolling cache, as one operation.
    """
    num_heads = ring.keys_RGSNE.shape[-2]
    q_BLNE = rms_norm(q_BLD, norms.q_D, norms.eps).unflatten(-1, (num_heads, -1))
    k_BLNE = rms_norm(k_BLD, norms.k_D, norms.eps).unflatten(-1, (num_heads, -1))
    if rotates_keys:
        k_BLNE = rotate(k_BLNE, table)
    write(ring, k_BLNE, v_BLD.unflatten(-1, (num_heads, -1)))
    return rotate(q_BLNE, table)
