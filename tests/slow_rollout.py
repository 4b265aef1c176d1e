"""What a session computes, written down as plainly as it can be: the oracle of the engine.

One row at a time, one chunk after the other, a cache of Python lists, attention as a softmax.
Shares the DiT and the elementary formulas with the engine, and nothing else.

Legend: F latent frames, C channels, H W latent height and width, L tokens, S tokens of a frame,
M keys, N heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from streamgen.cache.window import Positions
from streamgen.diffusion.flow import add_noise, clean_to_velocity, velocity_to_clean
from streamgen.diffusion.guidance import GuidanceMode
from streamgen.engine.batch import Started
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.models.base import Prediction
from streamgen.models.wan.dit import WanDiT
from streamgen.ops.rope import TokenGrid, rope_table, rotate
from tests.small_engine import GRID, NOISE


class SlowKV:
    """Keys and values of one layer in lists, unrotated, by frame; a LayerKV."""

    def __init__(
        self, *, sinks: int, ring: int, positions: Positions, grid: TokenGrid = GRID
    ) -> None:
        self._sinks = sinks
        self._ring = ring
        self._positions = positions
        self._grid = grid
        self.frames: list[int] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.first_frame = 0

    def copy(self) -> SlowKV:
        other = copy(self)
        other.frames, other.keys, other.values = [*self.frames], [*self.keys], [*self.values]
        return other

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        size, head_dim = self._grid.num_tokens, q_BLNE.shape[-1]
        while self.frames and self.frames[-1] >= self.first_frame:
            self._forget(len(self.frames) - 1)
        for number, (k_SNE, v_SNE) in enumerate(
            zip(k_BLNE[0].split(size), v_BLNE[0].split(size), strict=True)
        ):
            self.frames.append(self.first_frame + number)
            self.keys.append(k_SNE)
            self.values.append(v_SNE)
        newest = self.frames[-1]
        for index in reversed(range(len(self.frames))):
            if self._sinks <= self.frames[index] <= newest - self._ring:
                self._forget(index)
        positions = self.frames
        if self._positions is Positions.WINDOW:
            positions = list(range(len(self.frames)))
        num_new = q_BLNE.shape[1] // size
        tables = [
            rope_table(torch.tensor([which]), self._grid, head_dim)
            for which in (positions[-num_new:], positions)
        ]
        q_LNE = rotate(q_BLNE, tables[0])[0]
        k_MNE = rotate(torch.cat(self.keys)[None], tables[1])[0]
        scores = torch.einsum("lne,mne->nlm", q_LNE, k_MNE) / head_dim**0.5
        return torch.einsum("nlm,mne->lne", scores.softmax(-1), torch.cat(self.values))[None]

    def _forget(self, index: int) -> None:
        for each in (self.frames, self.keys, self.values):
            del each[index]


class SlowRow:
    """The model over one cache row."""

    def __init__(self, model: WanDiT, recipe: Recipe) -> None:
        self._model = model
        self.layers = [
            SlowKV(sinks=recipe.sinks, ring=recipe.ring, positions=recipe.positions)
            for _ in range(model.facts.num_blocks)
        ]

    def copy(self) -> SlowRow:
        other = copy(self)
        other.layers = [layer.copy() for layer in self.layers]
        return other

    def forward(
        self, latents_FCHW: Tensor, *, timestep: float, text_MD: Tensor, first_frame: int
    ) -> Tensor:
        model = self._model
        embedded = model.embed_text(text_MD[None])
        blocks = range(model.facts.num_blocks)
        timesteps = torch.full((1, latents_FCHW.shape[0]), timestep)
        cond = model.condition(timesteps, tuple(model.text_kv(i, embedded) for i in blocks))
        hidden = model.embed(latents_FCHW[None])
        for index in blocks:
            self.layers[index].first_frame = first_frame
            hidden = model.block(index, hidden, cond, self.layers[index])
        return model.head(hidden, cond, GRID)[0]


class SlowCascade:
    """What every pass of every chunk wrote, and rows made of it for one pass at a time."""

    def __init__(self, model: WanDiT, recipe: Recipe) -> None:
        self._model = model
        self._recipe = recipe
        self._wrote: dict[tuple[int, int], list[tuple[list[int], list[Tensor], list[Tensor]]]] = {}

    def forward(
        self,
        latents_FCHW: Tensor,
        *,
        chunk: int,
        step: int,
        timestep: float,
        text_MD: Tensor,
        first_frame: int,
    ) -> Tensor:
        """The chunk d before this one is read as its pass min(step + d lag, last) wrote it."""
        row, last = SlowRow(self._model, self._recipe), self._recipe.num_passes - 1
        for earlier in range(chunk):
            taken = min(step + (chunk - earlier) * self._recipe.lag, last)
            for layer, (frames, keys, values) in zip(
                row.layers, self._wrote[earlier, taken], strict=True
            ):
                layer.frames += frames
                layer.keys += keys
                layer.values += values
        predicted = row.forward(
            latents_FCHW, timestep=timestep, text_MD=text_MD, first_frame=first_frame
        )
        size = latents_FCHW.shape[0]
        self._wrote[chunk, step] = [
            (layer.frames[-size:], layer.keys[-size:], layer.values[-size:]) for layer in row.layers
        ]
        return predicted


def slow_cascade(
    model: WanDiT,
    recipe: Recipe,
    *,
    seed: int,
    start: Callable[[int], Started],
    num_chunks: int,
    text_of: Callable[[int], Tensor],
    negative_text: Tensor,
) -> list[Tensor]:
    """Clean latents of every chunk in `cascaded` mode; guidance, if any, is `full`."""
    plain, negative = SlowCascade(model, recipe), SlowCascade(model, recipe)
    guidance, finished = recipe.guidance, []
    for chunk in range(num_chunks):
        started = start(chunk)
        x, level, first_frame = started.latents_FCHW, started.level, recipe.first_frame(chunk)
        sigma, timestep = recipe.ladder.sigmas[0], recipe.ladder.timesteps[0]
        if level is not None:
            sigma, timestep = level.sigma, level.timestep
        where = {"chunk": chunk, "first_frame": first_frame}
        for step in range(recipe.num_steps):
            if step:
                sigma, timestep = recipe.ladder.sigmas[step], recipe.ladder.timesteps[step]
                noise = NOISE.noise(seed, chunk, step, tuple(x.shape))
                x = add_noise(x[None], noise[None], torch.tensor([sigma]))[0]
            at = {**where, "step": step, "timestep": timestep}
            v = plain.forward(x, text_MD=text_of(chunk), **at)
            if guidance.mode is GuidanceMode.FULL:
                n = negative.forward(x, text_MD=negative_text, **at)
                v = n + guidance.scale * (v - n)
            sigma_1 = torch.tensor([sigma], dtype=torch.float64)
            x = velocity_to_clean(x[None], v[None], sigma_1)[0]
        finished.append(x)
        at = {**where, "step": recipe.num_steps, "timestep": recipe.context_level.timestep}
        plain.forward(x, text_MD=text_of(chunk), **at)
        negative.forward(x, text_MD=negative_text, **at)
    return finished


def slow_rollout(
    model: WanDiT,
    recipe: Recipe,
    *,
    seed: int,
    start: Callable[[int], Started],
    num_chunks: int,
    text_of: Callable[[int], Tensor],
    negative_text: Tensor,
) -> tuple[list[Tensor], list[SlowRow]]:
    """Clean latents of every chunk, and the rows of the plain side (one in `clean` mode).

    `text_of` says which prompt a chunk follows. Guidance is one of

        full        v = n + g (c - n), n the model's velocity under the negative prompt
        initialize  n as in full at step 0; afterwards n = (x - z) / sigma with z from step 0
        self        n = (x - z) / sigma, z the clean input; without one there is no guidance

    and n is multiplied by delta in `initialize` and `self`.
    """
    is_clean = recipe.mode is CacheMode.CLEAN
    num_rows = 1 if is_clean else recipe.ladder.num_steps
    plain = [SlowRow(model, recipe) for _ in range(num_rows)]
    negative = [SlowRow(model, recipe) for _ in range(num_rows)]
    guidance, finished = recipe.guidance, []
    is_guided = guidance.mode is not GuidanceMode.NONE and guidance.scale != 1
    for chunk in range(num_chunks):
        started = start(chunk)
        x, z = started.latents_FCHW, started.endpoint_FCHW
        first_frame = 0
        if chunk:
            first_frame = recipe.first_chunk_frames + (chunk - 1) * recipe.chunk_frames
        sigma = recipe.ladder.sigmas[0]
        timestep = recipe.ladder.timesteps[0]
        if started.level is not None:
            sigma, timestep = started.level.sigma, started.level.timestep
        for step in range(recipe.ladder.num_steps):
            row = 0 if is_clean else step
            sigma_1 = torch.tensor([sigma], dtype=torch.float64)

            def velocity(which: SlowRow, text_MD: Tensor) -> Tensor:
                inputs = (x, timestep, first_frame, sigma_1)  # noqa: B023 - called at once
                predicted = which.forward(
                    inputs[0], timestep=inputs[1], text_MD=text_MD, first_frame=inputs[2]
                )
                if model.facts.prediction is Prediction.VELOCITY:
                    return predicted
                return clean_to_velocity(inputs[0][None], predicted[None], inputs[3])[0]

            v = velocity(plain[row], text_of(chunk))
            if is_guided:
                n = None
                if guidance.mode is GuidanceMode.FULL or (
                    guidance.mode is GuidanceMode.INITIALIZE and step == 0
                ):
                    n = velocity(negative[row], negative_text)
                    if guidance.mode is GuidanceMode.INITIALIZE:
                        z = velocity_to_clean(x[None], n[None], sigma_1)[0]
                elif z is not None:
                    n = (x - z) / sigma
                if n is not None:
                    n = guidance.delta * n
                    v = n + guidance.scale * (v - n)
            clean = velocity_to_clean(x[None], v[None], sigma_1)[0]
            if step + 1 < recipe.ladder.num_steps:
                sigma, timestep = recipe.ladder.sigmas[step + 1], recipe.ladder.timesteps[step + 1]
                noise = NOISE.noise(seed, chunk, step + 1, tuple(clean.shape))
                x = add_noise(clean[None], noise[None], torch.tensor([sigma]))[0]
        finished.append(clean)
        if is_clean:
            for which, text_MD in ((plain[0], text_of(chunk)), (negative[0], negative_text)):
                which.forward(
                    clean,
                    timestep=recipe.context_level.timestep,
                    text_MD=text_MD,
                    first_frame=first_frame,
                )
        elif chunk == 0 and recipe.first_chunk_is_alone:
            plain = [plain[-1].copy() for _ in plain]
            if guidance.mode is GuidanceMode.FULL:
                negative = [negative[-1].copy() for _ in negative]
    return finished, plain
