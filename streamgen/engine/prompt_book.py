"""Which prompts are in use, counted; the tensors themselves pass through once. Host state only."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from streamgen.types import PromptId

if TYPE_CHECKING:
    from torch import Tensor


class PromptBook:
    """Counts who holds a prompt: its maker, sessions, and chunks in flight."""

    def __init__(self) -> None:
        self._ids = itertools.count()
        self._holders: Counter[PromptId] = Counter()
        self._added: dict[PromptId, Tensor] = {}
        self._dropped: list[PromptId] = []

    def add(self, text: Tensor) -> PromptId:
        """Take in a prompt's features; its maker holds it."""
        prompt = PromptId(next(self._ids))
        self._added[prompt] = text
        self._holders[prompt] = 1
        return prompt

    @property
    def has_dropped(self) -> bool:
        """Whether the executor still keeps a prompt that nobody holds."""
        return bool(self._dropped)

    def hold(self, *prompts: PromptId) -> None:
        """All of them, or none and ValueError if one is not held by anybody any more."""
        for prompt in prompts:
            if not self._holders[prompt]:
                raise ValueError(f"prompt {prompt} is gone")
        self._holders.update(prompts)

    def release(self, prompt: PromptId) -> None:
        """The last release drops the prompt from the executor, or keeps it from going there."""
        if not self._holders[prompt]:
            raise ValueError(f"prompt {prompt} is gone")
        self._holders[prompt] -= 1
        if self._holders[prompt]:
            return
        del self._holders[prompt]
        if prompt in self._added:
            del self._added[prompt]
        else:
            self._dropped.append(prompt)

    def take_changes(self) -> tuple[dict[PromptId, Tensor], list[PromptId]]:
        """Prompts that are new, and that are gone, since the last call."""
        changes = self._added, self._dropped
        self._added, self._dropped = {}, []
        return changes
