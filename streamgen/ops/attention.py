"""Attention of tokens on tokens: the definition that every back end must equal.

Legend: B rows, L query tokens, M key tokens, N heads, E head dim.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attention(
    q_BLNE: Tensor, k_BMNE: Tensor, v_BMNE: Tensor, mask_LM: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v; a boolean mask is True where a query may look.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    """
    out_BNLE = F.scaled_dot_product_attention(
        q_BLNE.transpose(1, 2),
        k_BMNE.transpose(1, 2),
        v_BMNE.transpose(1, 2),
        attn_mask=mask_LM,
    )
    return out_BNLE.transpose(1, 2)
