"""Keys and values of the prompts in use, computed once a prompt.

Legend: B rows, M text tokens, D features, N heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from streamgen.models.base import CausalDiT, TextKV
from streamgen.types import PromptId


class PromptBank:
    """Owns the text keys and values of one stage; a prompt leaves when no chunk uses it.

    Features are kept beside them (4 MB a prompt), because keys and values are functions of the
    weights, and LoRAs change those while a stream runs.
    """

    def __init__(self, model: CausalDiT, blocks: range) -> None:
        """`blocks` are those of this stage, by their numbers in the whole model."""
        self._model = model
        self._blocks = blocks
        self._features: dict[PromptId, Tensor] = {}
        self._prompts: dict[PromptId, tuple[TextKV, ...]] = {}
        self._last: tuple[tuple[PromptId, ...], Mapping[int, TextKV]] | None = None

    def __len__(self) -> int:
        return len(self._prompts)

    def take_over(self, other: PromptBank) -> None:
        """Know the prompts of another bank, too, by this one's blocks."""
        for prompt, text_MD in other._features.items():
            self.add(prompt, text_MD)

    def add(self, prompt: PromptId, text_MD: Tensor) -> None:
        """Run a prompt's features through every block's key and value projections."""
        self._features[prompt] = text_MD
        embedded_1MD = self._model.embed_text(text_MD[None])
        self._prompts[prompt] = tuple(
            self._model.text_kv(index, embedded_1MD) for index in self._blocks
        )
        self._last = None

    def drop(self, prompt: PromptId) -> None:
        del self._prompts[prompt], self._features[prompt]
        self._last = None

    def refresh(self) -> None:
        """Compute all keys and values anew, for the weights have changed."""
        for prompt, text_MD in self._features.items():
            self.add(prompt, text_MD)

    def gather(self, prompts: Sequence[PromptId]) -> Mapping[int, TextKV]:
        """Keys and values for the rows of a batch, by block; a view where all rows share one.

        The same object as last time where the prompts are those of last time."""
        asked = tuple(prompts)
        if self._last is None or self._last[0] != asked:
            self._last = None  # let go of it before there is another one
            self._last = asked, self._gathered(asked)
        return self._last[1]

    def _gathered(self, prompts: Sequence[PromptId]) -> Mapping[int, TextKV]:
        if len(set(prompts)) == 1:
            shared, rows = self._prompts[prompts[0]], len(prompts)
            gathered = [
                TextKV(kv.k_BMNE.expand(rows, -1, -1, -1), kv.v_BMNE.expand(rows, -1, -1, -1))
                for kv in shared
            ]
        else:
            by_row = [self._prompts[prompt] for prompt in prompts]
            gathered = [
                TextKV(torch.cat([kv.k_BMNE for kv in own]), torch.cat([kv.v_BMNE for kv in own]))
                for own in zip(*by_row, strict=True)
            ]
        return dict(zip(self._blocks, gathered, strict=True))
