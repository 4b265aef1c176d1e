"""Keys and values of the prompts in use, computed once a prompt.

Legend: B rows, M text tokens, D features, N heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from streamgen.models.base import CausalDiT, TextKV
from streamgen.types import PromptId


class PromptBank:
    """Owns the text keys and values of one stage; a prompt leaves when no chunk uses it."""

    def __init__(self, model: CausalDiT) -> None:
        self._model = model
        self._prompts: dict[PromptId, tuple[TextKV, ...]] = {}

    def __len__(self) -> int:
        return len(self._prompts)

    def add(self, prompt: PromptId, text_MD: Tensor) -> None:
        """Run a prompt's features through every block's key and value projections."""
        embedded_1MD = self._model.embed_text(text_MD[None])
        self._prompts[prompt] = tuple(
            self._model.text_kv(index, embedded_1MD)
            for index in range(self._model.facts.num_blocks)
        )

    def drop(self, prompt: PromptId) -> None:
        del self._prompts[prompt]

    def gather(self, prompts: Sequence[PromptId]) -> tuple[TextKV, ...]:
        """Keys and values for the rows of a batch; a view where all rows share one prompt."""
        if len(set(prompts)) == 1:
            shared, rows = self._prompts[prompts[0]], len(prompts)
            return tuple(
                TextKV(kv.k_BMNE.expand(rows, -1, -1, -1), kv.v_BMNE.expand(rows, -1, -1, -1))
                for kv in shared
            )
        by_row = [self._prompts[prompt] for prompt in prompts]
        return tuple(
            TextKV(torch.cat([kv.k_BMNE for kv in block]), torch.cat([kv.v_BMNE for kv in block]))
            for block in zip(*by_row, strict=True)
        )
