"""The tiny model's text encoder: a closed vocabulary of words and their synonyms.

Legend: M text tokens, D features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")


class Vocabulary:
    """Maps words to tokens; synonyms share one (crimson is red). Immutable."""

    def __init__(self, words: Mapping[str, str]) -> None:
        """`words` maps every known word, lower case, to its canonical word."""
        self.words = dict(words)
        self.tokens = tuple(sorted(set(self.words.values())))
        self._ids = {token: number for number, token in enumerate(self.tokens)}

    def split(self, prompt: str) -> list[str]:
        """Words of a prompt, lower case, in order; unknown compounds come apart at hyphens."""
        words: list[str] = []
        for word in _WORD.findall(prompt.lower()):
            words += [word] if word in self.words else word.split("-")
        return words

    def ids(self, prompt: str) -> list[int]:
        """Token ids of the known words of a prompt, in order."""
        return [self._ids[token] for token in self.canonical(prompt)]

    def canonical(self, prompt: str) -> list[str]:
        """The known words of a prompt as their canonical words, in order."""
        known = (self._canonical(word) for word in self.split(prompt))
        return [token for token in known if token is not None]

    def unknown(self, prompt: str) -> tuple[str, ...]:
        """Words of a prompt that have no token, each once, in order."""
        words = dict.fromkeys(self.split(prompt))
        return tuple(word for word in words if self._canonical(word) is None)

    def _canonical(self, word: str) -> str | None:
        if word in self.words:
            return self.words[word]
        return self.words.get(word[:-1]) if word.endswith("s") else None


class TinyTextEncoder(nn.Module):
    """Word embeddings and a small transformer that binds colours to things."""

    def __init__(self, vocabulary: Vocabulary, *, dim: int, num_layers: int, text_len: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.text_len = text_len
        self.embedding = nn.Embedding(len(vocabulary.tokens), dim)
        self.position = nn.Parameter(torch.randn(text_len, dim) * 0.02)
        layer = nn.TransformerEncoderLayer(
            dim, max(1, dim // 32), 2 * dim, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)

    def encode(self, prompt: str) -> Tensor:
        """Features [M, D] of a prompt's known words; M is 0 if there is none."""
        ids = self.vocabulary.ids(prompt)[: self.text_len]
        if not ids:
            return self.position.new_zeros((0, self.position.shape[1]))
        ids_1M = torch.tensor([ids], device=self.position.device)
        return self.features(ids_1M, torch.ones_like(ids_1M, dtype=torch.bool))[0]

    def features(self, ids_BM: Tensor, is_word_BM: Tensor) -> Tensor:
        """Features of padded prompts, zero where there is no word: BMD."""
        x_BMD = self.embedding(ids_BM) + self.position[: ids_BM.shape[1]]
        empty_B = ~is_word_BM.any(dim=1)
        is_padding_BM = ~is_word_BM & ~empty_B[:, None]
        x_BMD = self.norm(self.layers(x_BMD, src_key_padding_mask=is_padding_BM))
        return x_BMD * is_word_BM[..., None]

    takes_long = False

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return self.vocabulary.unknown(prompt)
