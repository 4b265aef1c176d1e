"""What each cache policy means, written down with lists: the oracle of `streamgen.cache`.

One layer keeps its frames as entries in the order of time, keys unrotated; every chunk rotates
them all to where the policy says they are. Shares the DiT, the elementary formulas and the slow
attention's arithmetic with nothing of `streamgen.cache`.

Legend: F latent frames, C channels, H W latent height and width, L tokens, S tokens of a frame,
M keys, N heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.cache.window import Positions
from streamgen.diffusion.flow import add_noise, velocity_to_clean
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.models.wan.dit import WanDiT
from streamgen.ops.rope import RopeTable, rope_table, rotate
from tests.small_engine import GRID, NOISE


@dataclass
class Entry:
    """One latent frame in one layer, its key unrotated."""

    frame: int
    position: int
    """Where it stood when it was written; sinks with places of their own stay there."""
    k_SNE: Tensor
    v_SNE: Tensor


@dataclass(frozen=True)
class Policy:
    """A policy in words of its own, so that it is not the engine's."""

    place: str = "own"
    reach: int = 0
    decay: float | None = None
    threshold: float | None = None
    refresh: int = 0
    on_prompt: str = "keep"
    flush_keeps: int = 0


class ListKV:
    """Keys and values of one layer; a LayerKV."""

    def __init__(self, recipe: Recipe, policy: Policy) -> None:
        self._recipe, self._policy = recipe, policy
        self.sinks: list[Entry] = []
        self.ring: list[Entry] = []
        self.set_back = 0
        self.doing = "chunk"
        self.frames: Sequence[int] = ()
        self._start = -1

    def flush(self, num_kept: int) -> None:
        self.ring = self.ring[len(self.ring) - min(num_kept, len(self.ring)) :]

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        if self.doing == "chunk":
            self._refresh()
        new = [
            Entry(frame, frame - self.set_back * (frame >= self._recipe.sinks), k_SNE, v_SNE)
            for frame, k_SNE, v_SNE in zip(
                self.frames,
                k_BLNE[0].split(GRID.num_tokens),
                v_BLNE[0].split(GRID.num_tokens),
                strict=True,
            )
        ]
        if self.doing == "recache":
            self._overwrite(new)
        else:
            self._let_in(new)
        return self._attention(q_BLNE, new)

    def _overwrite(self, new: list[Entry]) -> None:
        by_frame = {entry.frame: entry for entry in new}
        self.sinks = [by_frame.get(entry.frame, entry) for entry in self.sinks]
        self.ring = [by_frame.get(entry.frame, entry) for entry in self.ring]

    def _let_in(self, new: list[Entry]) -> None:
        start = new[0].frame
        if start == self._start:
            return self._overwrite(new)
        self._start = start
        policy, recipe = self._policy, self._recipe
        is_full = len(self.sinks) + len(self.ring) == recipe.sinks + recipe.ring
        if policy.threshold is not None and is_full and self._replaces_a_sink(new[0]):
            return None
        for entry in new:
            (self.sinks if entry.frame < recipe.sinks else self.ring).append(entry)
        while len(self.ring) > recipe.ring and recipe.mode is not CacheMode.RECOMPUTE:
            gone = self.ring.pop(0)
            if policy.decay is not None:
                sink = self.sinks[gone.frame % recipe.sinks]
                keep = policy.decay
                sink.k_SNE = keep * sink.k_SNE + (1 - keep) * gone.k_SNE
                sink.v_SNE = keep * sink.v_SNE + (1 - keep) * gone.v_SNE
        return None

    def _refresh(self) -> None:
        """Set back, so that a ring of which nothing was kept by replacements follows the sinks."""
        refresh, recipe = self._policy.refresh, self._recipe
        if refresh and self.frames[0] - self.set_back >= refresh:
            self.set_back = self.frames[-1] + 1 - recipe.ring - recipe.sinks

    def _replaces_a_sink(self, new: Entry) -> bool:
        """Likeness of keys where they stand, and of values; means over tokens."""
        likeness = []
        for sink in self.sinks:
            ours, theirs = (
                rotate(entry.k_SNE[None], _table([entry.position]))[0] for entry in (sink, new)
            )
            pairs = ((ours, theirs), (sink.v_SNE, new.v_SNE))
            cosines = [
                torch.dot(a.mean(0).flatten(), b.mean(0).flatten())
                / (a.mean(0).norm() * b.mean(0).norm())
                for a, b in pairs
            ]
            likeness.append(float(sum(cosines)) / 2)
        assert self._policy.threshold is not None
        if min(likeness) >= self._policy.threshold:
            return False
        self.sinks[likeness.index(min(likeness))] = new
        return True

    def _positions(self, new: list[Entry]) -> list[int]:
        """Of sinks, then of the ring."""
        recipe, policy = self._recipe, self._policy
        if recipe.positions is Positions.WINDOW or recipe.mode is CacheMode.RECOMPUTE:
            return list(range(len(self.sinks) + len(self.ring)))
        ring = [entry.frame - self.set_back for entry in self.ring]
        sinks = [entry.position for entry in self.sinks]
        if ring and new[0].frame >= recipe.sinks:
            if policy.place == "before":
                sinks = [ring[0] - len(sinks) + index for index in range(len(sinks))]
            elif policy.place == "within":
                shift = max(0, ring[-1] - policy.reach)
                sinks = [index + shift for index in range(len(sinks))]
            elif policy.place == "ahead":
                first = max(30, new[0].frame + policy.reach)
                sinks = [first + index for index in range(len(sinks))]
        return sinks + ring

    def _attention(self, q_BLNE: Tensor, new: list[Entry]) -> Tensor:
        entries = self.sinks + self.ring
        positions = self._positions(new)
        where = {id(entry): place for entry, place in zip(entries, positions, strict=True)}
        q_LNE = rotate(q_BLNE, _table([where[id(entry)] for entry in new]))[0]
        k_MNE = rotate(torch.cat([e.k_SNE for e in entries])[None], _table(positions))[0]
        v_MNE = torch.cat([e.v_SNE for e in entries])
        scores = torch.einsum("lne,mne->nlm", q_LNE, k_MNE) / q_LNE.shape[-1] ** 0.5
        return torch.einsum("nlm,mne->lne", scores.softmax(-1), v_MNE)[None]


def _table(positions: list[int]) -> RopeTable:
    return rope_table(torch.tensor([positions]), GRID, 16)


class ListRow:
    """The model over one cache row of lists."""

    def __init__(self, model: WanDiT, recipe: Recipe, policy: Policy) -> None:
        self._model = model
        self.layers = [ListKV(recipe, policy) for _ in range(model.facts.num_blocks)]

    def forward(
        self,
        latents_FCHW: Tensor,
        *,
        timestep: float,
        text_MD: Tensor,
        frames: Sequence[int],
        doing: str = "chunk",
    ) -> Tensor:
        model = self._model
        embedded = model.embed_text(text_MD[None])
        blocks = range(model.facts.num_blocks)
        timesteps = torch.full((1, latents_FCHW.shape[0]), timestep)
        cond = model.condition(timesteps, tuple(model.text_kv(i, embedded) for i in blocks))
        hidden = model.embed(latents_FCHW[None])
        for index in blocks:
            layer = self.layers[index]
            layer.doing, layer.frames = doing, frames
            hidden = model.block(index, hidden, cond, layer)
        return model.head(hidden, cond, GRID)[0]


def slow_stream(
    model: WanDiT,
    recipe: Recipe,
    policy: Policy,
    *,
    seed: int,
    start: Callable[[int], Tensor],
    text_numbers: Sequence[int],
    text: Callable[[int], Tensor],
) -> Tensor:
    """Clean latents of one chunk for each entry of `text_numbers`, which names its prompt."""
    is_per_step = recipe.mode is CacheMode.PER_STEP
    num_rows = recipe.num_steps if is_per_step else 1
    rows = [ListRow(model, recipe, policy) for _ in range(num_rows)]
    finished: list[Tensor] = []
    context = recipe.context_level.timestep
    for chunk, number in enumerate(text_numbers):
        first = recipe.first_frame(chunk)
        frames = range(first, first + recipe.num_frames(chunk))
        text_MD = text(number)
        is_switch = chunk > 0 and number != text_numbers[chunk - 1]
        past = torch.cat(finished) if finished else torch.zeros(0)
        for row in rows:
            if is_switch and policy.on_prompt == "flush":
                for layer in row.layers:
                    layer.flush(policy.flush_keeps)
        if is_switch and policy.on_prompt == "recache":
            again = [entry.frame for entry in rows[0].layers[0].ring]
            if first <= recipe.sinks + recipe.ring:
                again = list(range(first))
            rows[0].forward(
                past[again], timestep=context, text_MD=text_MD, frames=again, doing="recache"
            )
        if recipe.mode is CacheMode.RECOMPUTE:
            rows = [_recomputed(model, recipe, policy, past, first, text_MD)]
        x = start(chunk)
        for step in range(recipe.num_steps):
            row = rows[step if is_per_step else 0]
            v = row.forward(
                x, timestep=recipe.ladder.timesteps[step], text_MD=text_MD, frames=frames
            )
            sigma = torch.tensor([recipe.ladder.sigmas[step]], dtype=torch.float64)
            clean = velocity_to_clean(x[None], v[None], sigma)[0]
            if step + 1 < recipe.num_steps:
                noise = NOISE.noise(seed, chunk, step + 1, tuple(clean.shape))
                level = torch.tensor([recipe.ladder.sigmas[step + 1]])
                x = add_noise(clean[None], noise[None], level)[0]
        finished.append(clean)
        if recipe.mode is CacheMode.CLEAN:
            rows[0].forward(clean, timestep=context, text_MD=text_MD, frames=frames)
    return torch.cat(finished)


def _recomputed(
    model: WanDiT, recipe: Recipe, policy: Policy, past: Tensor, end: int, text_MD: Tensor
) -> ListRow:
    """A fresh row over the first and the newest clean frames, chunk after chunk: that is what
    causal from chunk to chunk means."""
    row = ListRow(model, recipe, policy)
    newest = recipe.ring - recipe.chunk_frames
    context = [f for f in range(end) if f < recipe.sinks or f >= end - newest]
    for first in range(0, len(context), recipe.chunk_frames):
        some = context[first : first + recipe.chunk_frames]
        row.forward(
            past[some],
            timestep=recipe.context_level.timestep,
            text_MD=text_MD,
            frames=some,
        )
    return row
