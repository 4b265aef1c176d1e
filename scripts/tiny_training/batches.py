"""Training sequences drawn from the pool: windows as a stream's cache will hold them.

Legend: B sequences, N latent frames of a window, C H W latent channels, height, width, M words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamgen.models.tiny.text import Vocabulary
from tiny_training.pool import LATENT_FRAMES, Item, LatentPool
from tiny_world.captions import caption
from tiny_world.styles import style_caption, style_phrase

CAPTION_DROPOUT = 0.1
STREAM_START_SHARE = (
    0.4  # windows that begin with the stream; the others are sink, gap, recent frames
)
MAX_CONDITION_NOISE = 0.4  # noise level on a condition latent
SHARES = {"world": 0.55, "styled": 0.2, "picture": 0.25}  # of each kind in what is drawn
CONDITION_SHARES = {"world": 0.08, "styled": 0.6, "picture": 1.0}  # of the clips of each kind


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Windows, their conditions (zeros where dropped), prompts, and which frames count."""

    clean_BNCHW: Tensor
    condition_BNCHW: Tensor
    ids_BM: Tensor
    is_word_BM: Tensor
    counts_BN: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on a device."""
        return TrainingBatch(
            *(
                part.to(device, non_blocking=True)
                for part in (
                    self.clean_BNCHW,
                    self.condition_BNCHW,
                    self.ids_BM,
                    self.is_word_BM,
                    self.counts_BN,
                )
            )
        )


def draw(
    pool: LatentPool,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    *,
    size: int,
    frames: int,
    text_len: int,
) -> TrainingBatch:
    """Draw `size` windows of `frames` latent frames, captions and conditions included."""
    clean, condition, prompts = [], [], []
    counts_BN = torch.ones(size, frames)
    for row in range(size):
        index = pool.draw(rng, SHARES)
        item = pool.items[index]
        is_periodic = item.scene is not None and item.scene.pan == "none"
        picks, has_gap = window(rng, frames, is_periodic=is_periodic)
        if has_gap and frames > 1:
            counts_BN[row, 1] = 0  # with only the sink to look at, its place in time is a guess
        target = pool.target(index)[picks].float()
        clean.append(target)
        frames_NCHW, is_conditioned = condition_of(rng, item, pool.source(index)[picks].float())
        condition.append(frames_NCHW)
        prompts.append(
            "" if rng.random() < CAPTION_DROPOUT else prompt_of(rng, item, is_conditioned)
        )
    ids_BM, is_word_BM = pad_prompts(vocabulary, prompts, text_len)
    return TrainingBatch(torch.stack(clean), torch.stack(condition), ids_BM, is_word_BM, counts_BN)


def window(rng: np.random.Generator, frames: int, *, is_periodic: bool) -> tuple[list[int], bool]:
    """Indices of a window's latent frames, and whether time is missing behind the first one."""
    if frames == 1 or rng.random() < STREAM_START_SHARE:
        start = 0 if is_periodic else int(rng.integers(LATENT_FRAMES - frames + 1))
        return list(range(start, start + frames)), False
    last_start = LATENT_FRAMES if is_periodic else LATENT_FRAMES - frames + 2
    start = int(rng.integers(1, last_start))
    return [0, *((start + k) % LATENT_FRAMES for k in range(frames - 1))], True


def condition_of(rng: np.random.Generator, item: Item, source_NCHW: Tensor) -> tuple[Tensor, bool]:
    """The condition latents of a window, zeros where it is dropped, and whether there is one."""
    if rng.random() >= CONDITION_SHARES[item.kind]:
        return torch.zeros_like(source_NCHW), False
    return _noisy_condition(rng, source_NCHW), True


def _noisy_condition(rng: np.random.Generator, source: Tensor) -> Tensor:
    level = 0.0 if rng.random() < 0.6 else float(rng.uniform(0, MAX_CONDITION_NOISE))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return (1 - level) * source + level * torch.randn(source.shape, generator=generator)


def prompt_of(rng: np.random.Generator, item: Item, is_conditioned: bool) -> str:
    """A caption of what the target shows; for a restyled clip sometimes the style alone."""
    if item.scene is None or (is_conditioned and item.style != "none" and rng.random() < 0.6):
        return style_caption(item.style, rng)
    words = caption(item.scene, rng)
    return words if item.style == "none" else f"{words} {style_phrase(item.style, rng)}"


def pad_prompts(vocabulary: Vocabulary, prompts: list[str], text_len: int) -> tuple[Tensor, Tensor]:
    """Token ids [B, M], padded with 0, and a mask that is True where there is a word."""
    ids_BM = torch.zeros(len(prompts), text_len, dtype=torch.long)
    is_word_BM = torch.zeros(len(prompts), text_len, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids = vocabulary.ids(prompt)[:text_len]
        ids_BM[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        is_word_BM[row, : len(ids)] = True
    return ids_BM, is_word_BM
