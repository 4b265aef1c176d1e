"""Keys and values of the prompts in use, computed once a prompt.

Legend: B rows, M text tokens, D features, N heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
        self._shared: tuple[tuple[PromptId, int], Mapping[int, TextKV]] | None = None

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
        self._shared = None

    def drop(self, prompt: PromptId) -> None:
        del self._prompts[prompt], self._features[prompt]
        self._shared = None

    def refresh(self) -> None:
        """Compute all keys and values anew, for the weights have changed."""
        for prompt, text_MD in self._features.items():
            self.add(prompt, text_MD)

    def gather(self, prompts: Sequence[PromptId]) -> Mapping[int, TextKV]:
        """Keys and values for the rows of a batch, by block.

        Where all rows share a prompt these are views, and the same object for the same batch as
        last time; copies of several prompts are large, and nobody keeps them here.
        """
        if len(set(prompts)) > 1:
            by_row = [self._prompts[prompt] for prompt in prompts]
            return self._by_block(
                TextKV(torch.cat([kv.k_BMNE for kv in own]), torch.cat([kv.v_BMNE for kv in own]))
                for own in zip(*by_row, strict=True)
            )
        asked = prompts[0], len(prompts)
        if self._shared is None or self._shared[0] != asked:
            views = (
                TextKV(*(x.expand(len(prompts), -1, -1, -1) for x in (kv.k_BMNE, kv.v_BMNE)))
                for kv in self._prompts[prompts[0]]
            )
            self._shared = asked, self._by_block(views)
        return self._shared[1]

    def _by_block(self, gathered: Iterable[TextKV]) -> Mapping[int, TextKV]:
        return dict(zip(self._blocks, gathered, strict=True))
