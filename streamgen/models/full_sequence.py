"""Self-attention of a whole sequence at once: the oracle of the cache, and what training uses.

Legend: B rows, F latent frames, L tokens, N heads, E head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamgen.models.base import CausalDiT, TextKV
from streamgen.ops.attention import attention
from streamgen.ops.rope import RopeTable, rope_table, rotate


class FullSequenceKV:
    """A LayerKV without memory: new tokens attend to each other under a boolean mask."""

    def __init__(self, table: RopeTable, mask_LL: Tensor | None) -> None:
        self._table = table
        self._mask_LL = mask_LL

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        q_BLNE = rotate(q_BLNE, self._table)
        k_BLNE = rotate(k_BLNE, self._table)
        return attention(q_BLNE, k_BLNE, v_BLNE, self._mask_LL)


def block_causal_mask(num_frames: int, chunk_frames: int, tokens_per_frame: int) -> Tensor:
    """[L, L], True where a token may look: its own chunk and all before it."""
    chunk_of = torch.arange(num_frames) // chunk_frames
    return expand_frame_mask(chunk_of[:, None] >= chunk_of[None], tokens_per_frame)


def expand_frame_mask(mask_FF: Tensor, tokens_per_frame: int) -> Tensor:
    """A mask between latent frames as one between their tokens."""
    mask_LF = mask_FF.repeat_interleave(tokens_per_frame, dim=0)
    return mask_LF.repeat_interleave(tokens_per_frame, dim=1)


def forward_full(
    model: CausalDiT,
    latents_BFCHW: Tensor,
    timesteps_BF: Tensor,
    text_BMD: Tensor,
    *,
    positions_BF: Tensor,
    mask_FF: Tensor | None = None,
) -> Tensor:
    """Run a whole sequence through the model; BFCHW in, BFCHW out.

    `text_BMD` are the text encoder's features, `positions_BF` integer temporal positions,
    `mask_FF` says which latent frame may look at which (all at all if None).
    """
    grid = model.grid(latents_BFCHW.shape[-2], latents_BFCHW.shape[-1])
    table = rope_table(positions_BF, grid, model.facts.head_dim, latents_BFCHW.device)
    mask_LL = None if mask_FF is None else expand_frame_mask(mask_FF, grid.num_tokens)
    kv = FullSequenceKV(table, mask_LL)
    embedded_BMD = model.embed_text(text_BMD)
    text: tuple[TextKV, ...] = tuple(
        model.text_kv(index, embedded_BMD) for index in range(model.facts.num_blocks)
    )
    cond = model.condition(timesteps_BF, text)
    hidden_BLD = model.embed(latents_BFCHW)
    for index in range(model.facts.num_blocks):
        hidden_BLD = model.block(index, hidden_BLD, cond, kv)
    return model.head(hidden_BLD, cond, grid)
