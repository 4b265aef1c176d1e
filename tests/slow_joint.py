"""What `joint` mode means, written down with lists as Rolling Forcing's code goes: its oracle.

Absolute positions, and no ring: all clean keys are kept, and what a pass reads of them is counted
in frames as the reference counts it (TencentARC/RollingForcing a1477d0, causal_model.py). Shares
the DiT and the elementary formulas with nothing of `streamgen.cache` or `streamgen.engine.joint`.

Legend: F latent frames, C channels, H W latent height and width, L tokens, S tokens of a frame,
M keys, N heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from streamgen.diffusion.flow import add_noise, velocity_to_clean
from streamgen.engine.recipe import Recipe
from streamgen.models.wan.dit import WanDiT
from streamgen.ops.rope import rope_table, rotate
from tests.small_engine import GRID, NOISE

Entry = tuple[Tensor, Tensor]  # keys, unrotated, and values of one latent frame, [S, N, E] each


class CleanKV:
    """Keys and values of one layer; a LayerKV."""

    def __init__(self, sinks: int, budget: int) -> None:
        self._sinks, self._budget = sinks, budget
        self.clean: dict[int, Entry] = {}
        self.frames = range(0)
        self.is_clean_pass = False

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        size = GRID.num_tokens
        own = list(zip(k_BLNE[0].split(size), v_BLNE[0].split(size), strict=True))
        here = list(zip(self.frames, own, strict=True))
        if self.is_clean_pass:
            self.clean |= dict(here)
            newest = range(max(0, self.frames.stop - self._budget), self.frames.stop)
            read = [(frame, self.clean[frame]) for frame in newest]
        else:
            read = [*self._before(), *here]
        positions = torch.tensor([[position for position, _ in read]])
        k_MNE = torch.cat([k for _, (k, _) in read])
        v_MNE = torch.cat([v for _, (_, v) in read])
        q_LNE = rotate(q_BLNE, rope_table(torch.tensor([list(self.frames)]), GRID, 16))[0]
        k_MNE = rotate(k_MNE[None], rope_table(positions, GRID, 16))[0]
        scores = torch.einsum("lne,mne->nlm", q_LNE, k_MNE) / q_LNE.shape[-1] ** 0.5
        return torch.einsum("nlm,mne->lne", scores.softmax(-1), v_MNE)[None]

    def _before(self) -> list[tuple[int, Entry]]:
        """The anchor, directly before as many clean frames as there is room for; by position."""
        start, sinks = self.frames.start, self._sinks
        anchor = [frame for frame in range(sinks) if frame < start]
        room = self._budget - len(self.frames) - len(anchor)
        working = range(max(len(anchor), start - room), start)
        first = start - len(working) - len(anchor)
        return [
            *((first + index, self.clean[frame]) for index, frame in enumerate(anchor)),
            *((frame, self.clean[frame]) for frame in working),
        ]


def slow_joint_stream(
    model: WanDiT,
    recipe: Recipe,
    *,
    seed: int,
    start: Callable[[int], Tensor],
    text_numbers: Sequence[int],
    text: Callable[[int], Tensor],
    given: Mapping[int, Tensor] | None = None,
) -> tuple[Tensor, list[CleanKV]]:
    """Clean latents of one chunk for each entry of `text_numbers`, and the layers afterwards.

    `given` are chunks that end as these clean latents whatever is predicted.
    """
    layers = [CleanKV(recipe.sinks, recipe.sinks + recipe.ring) for _ in model.blocks]
    num_steps, num_chunks = recipe.num_steps, len(text_numbers)
    noisy: dict[int, Tensor] = {}
    finished: list[Tensor] = []
    for window in range(num_chunks + num_steps - 1):
        chunks = range(max(0, window - num_steps + 1), min(num_chunks - 1, window) + 1)
        if window < num_chunks:
            noisy[window] = start(window)
        levels = {chunk: recipe.ladder.timesteps[window - chunk] for chunk in chunks}
        texts = {chunk: text(text_numbers[chunk]) for chunk in chunks}
        velocities = _forward(model, recipe, layers, noisy, levels, texts, is_clean_pass=False)
        for chunk in chunks:
            step = window - chunk
            sigma = torch.tensor([recipe.ladder.sigmas[step]], dtype=torch.float64)
            clean = velocity_to_clean(noisy[chunk][None], velocities[chunk][None], sigma)[0]
            clean = (given or {}).get(chunk, clean)
            if step + 1 < num_steps:
                noise = NOISE.noise(seed, chunk, step + 1, tuple(clean.shape))
                level = torch.tensor([recipe.ladder.sigmas[step + 1]])
                noisy[chunk] = add_noise(clean[None], noise[None], level)[0]
            else:
                finished.append(clean)
                context = {chunk: recipe.context_level.timestep}
                some = {chunk: clean}
                _forward(model, recipe, layers, some, context, texts, is_clean_pass=True)
                del noisy[chunk]
    return torch.cat(finished), layers


def _forward(
    model: WanDiT,
    recipe: Recipe,
    layers: list[CleanKV],
    latents: Mapping[int, Tensor],
    levels: Mapping[int, float],
    texts: Mapping[int, Tensor],
    *,
    is_clean_pass: bool,
) -> dict[int, Tensor]:
    """Velocities of neighbouring chunks that attend to each other, each under its own text.

    A block runs once for every chunk's text, and each chunk keeps its own tokens of that: text
    touches no other token than its own before the next block.
    """
    chunks = sorted(levels)
    sizes = [latents[chunk].shape[0] for chunk in chunks]
    first = recipe.first_frame(chunks[0])
    timesteps = [[levels[c] for c, size in zip(chunks, sizes, strict=True) for _ in range(size)]]
    cond = model.condition(torch.tensor(timesteps), ())
    hidden = model.embed(torch.cat([latents[chunk] for chunk in chunks])[None])
    tokens = [size * GRID.num_tokens for size in sizes]
    for index, layer in enumerate(layers):
        layer.frames, layer.is_clean_pass = range(first, first + sum(sizes)), is_clean_pass
        parts: list[Tensor] = []
        for place, chunk in enumerate(chunks):
            own = model.text_kv(index, model.embed_text(texts[chunk][None]))
            under = replace(cond, text={index: own})
            parts.append(model.block(index, hidden, under, layer).split(tokens, dim=1)[place])
        hidden = torch.cat(parts, dim=1)
    velocities = model.head(hidden, cond, GRID)[0].split(sizes)
    return dict(zip(chunks, velocities, strict=True))
