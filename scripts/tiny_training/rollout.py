"""Streams that outlive a training step: the model learns from its own past, cached as in use.

A group of streams goes on by a few chunks a training step, through the same few denoise steps, the
same clean pass and the same window of keys and values as the engine's; what it holds is kept for
its next turn, so contexts of hundreds of frames are trained on. The idea is Self-Forcing's
(arXiv:2506.08009, algorithm 1), with regression to the data as the loss and, between training
steps, truncated back-propagation.

Targets exist for ever, because the motions of the world are periodic: what follows the phase of
the motion that a stream's last chunk is nearest to. By the clock instead, a stream that has fallen
behind would be taught to jump, the next one not to, and both learn the blur between.

Legend: B streams, F = 1 latent frame, C H W latents, S tokens of a frame, L tokens, N E heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamgen.models.base import TextKV
from streamgen.models.tiny.text import TinyTextEncoder, Vocabulary
from streamgen.models.wan.dit import WanDiT
from streamgen.ops.attention import attention
from streamgen.ops.rope import RopeTable, rope_table, rotate
from tiny_training.batches import pad_prompts, prompt_of
from tiny_training.losses import WEIGHT_FLOOR
from tiny_training.model import TEXT_LEN
from tiny_training.pool import LATENT_FRAMES, Item, LatentPool
from tiny_world.captions import MOTIONS

SINKS, RING = 1, 3  # the shipped preset's window; the newest of the ring is the chunk itself
LADDERS = ((1.0,), (1.0, 0.75), (1.0, 0.9, 0.75, 0.5))  # one, two, four steps at shift 3
LADDER_SHARES = (0.2, 0.5, 0.3)
TURN_CHUNKS = 4  # chunks that a group goes on by in one training step
NUM_GROUPS = 8
REBIRTH_SHARE = 0.15  # of turns after which a group begins anew: a mean life of about 100 frames
SWITCH_SHARE = 0.06  # of streams that follow another prompt from a turn on
DROPPED_SHARE = 0.05  # of streams without words
MOTION_ALONE_SHARE = 0.5  # of streams from a still picture whose words name the motion only
KIND_SHARES = {"world": 0.8, "styled": 0.1, "picture": 0.1}
START_SHARES = (0.35, 0.35, 0.3)  # first chunk: from the data, the model's own, a still picture
CONTEXT_NOISE = 0.1  # highest noise on a first chunk that comes from the data


@dataclass(frozen=True, slots=True)
class Cell:
    """Keys and values of one latent frame, unrotated, of all layers, BSNE each."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def detached(self) -> Cell:
        return Cell(
            tuple(key.detach() for key in self.keys), tuple(v.detach() for v in self.values)
        )


@dataclass(slots=True)
class StreamGroup:
    """Streams of one age: what each shows, and the window that they look at."""

    indices: list[int]
    """Of the clips in the pool."""
    is_still: list[bool]
    """Whether a stream began with a still picture: its motion begins behind it."""
    ids_BM: Tensor
    is_word_BM: Tensor
    age: int
    """Chunks so far."""
    cells: list[Cell]
    """Of the frames in the window, oldest first."""
    last: list[Tensor]
    """The newest clean latents of each stream, CHW; empty before the first chunk."""


class _TurnKV:
    """A LayerKV over held cells: the new tokens see them and themselves, in window positions."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], table: RopeTable) -> None:
        self._held_keys, self._held_values = list(keys), list(values)
        self._table = table
        self.own: tuple[Tensor, Tensor] | None = None

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        self.own = (k_BLNE, v_BLNE)
        newest = RopeTable(
            self._table.cos_BL1P[:, -q_BLNE.shape[1] :], self._table.sin_BL1P[:, -q_BLNE.shape[1] :]
        )
        keys = rotate(torch.cat([*self._held_keys, k_BLNE], dim=1), self._table)
        values = torch.cat([*self._held_values, v_BLNE], dim=1)
        return attention(rotate(q_BLNE, newest), keys, values)


class Rollouts:
    """Owns the groups of streams; one `turn` is one training step's loss."""

    def __init__(
        self,
        dit: WanDiT,
        text: TinyTextEncoder,
        pool: LatentPool,
        vocabulary: Vocabulary,
        *,
        num_streams: int,
        device: torch.device,
    ) -> None:
        """`num_streams` a group."""
        self._dit = dit
        self._text = text
        self._pool = pool
        self._vocabulary = vocabulary
        self._num_streams = num_streams
        self._device = device
        self._groups: list[StreamGroup | None] = [None] * NUM_GROUPS

    def turn(self, rng: np.random.Generator) -> Tensor:
        """Let one group go on by TURN_CHUNKS chunks; their loss, ready for `backward`."""
        number = int(rng.integers(NUM_GROUPS))
        group = self._groups[number]
        if group is None or rng.random() < REBIRTH_SHARE:
            group = self._new_group(rng)
        else:
            self._switch_some(group, rng)
        texts = self._texts(group)
        if group.age == 0:
            self._begin(group, texts, rng)
        ladder = LADDERS[int(rng.choice(len(LADDERS), p=LADDER_SHARES))]
        losses = [self._chunk(group, texts, ladder, rng) for _ in range(TURN_CHUNKS)]
        group.cells = [cell.detached() for cell in group.cells]
        self._groups[number] = group
        return torch.stack(losses).mean()

    def _new_group(self, rng: np.random.Generator) -> StreamGroup:
        indices = [self._draw(rng) for _ in range(self._num_streams)]
        starts = rng.choice(3, size=len(indices), p=START_SHARES)
        is_still = [
            bool(start == 2) or self._pool.items[index].kind == "picture"
            for index, start in zip(indices, starts, strict=True)
        ]
        ids_BM, is_word_BM = self._prompts(indices, is_still, rng)
        return StreamGroup(indices, is_still, ids_BM, is_word_BM, age=0, cells=[], last=[])

    def _draw(self, rng: np.random.Generator) -> int:
        while True:
            index = self._pool.draw(rng, KIND_SHARES)
            scene = self._pool.items[index].scene
            if scene is None or scene.pan == "none":  # pans have another period than motions
                return index

    def _prompts(
        self, indices: list[int], is_still: list[bool], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        prompts = [
            self._prompt(self._pool.items[index], still, rng)
            for index, still in zip(indices, is_still, strict=True)
        ]
        return pad_prompts(self._vocabulary, prompts, TEXT_LEN)

    def _prompt(self, item: Item, is_still: bool, rng: np.random.Generator) -> str:
        if rng.random() < DROPPED_SHARE:
            return ""
        if is_still and item.scene is not None and rng.random() < MOTION_ALONE_SHARE:
            return str(rng.choice(MOTIONS[item.scene.motion]))
        return prompt_of(rng, item, is_conditioned=False)

    def _switch_some(self, group: StreamGroup, rng: np.random.Generator) -> None:
        """From now on some streams show another clip, under its prompt, in the same phase."""
        for row, index in enumerate(group.indices):
            if self._pool.items[index].kind != "picture" and rng.random() < SWITCH_SHARE:
                other = self._draw(rng)
                if self._pool.items[other].kind == "picture":
                    continue
                ids_BM, is_word_BM = self._prompts([other], [False], rng)
                group.indices[row] = other
                group.ids_BM[row], group.is_word_BM[row] = ids_BM[0], is_word_BM[0]

    def _texts(self, group: StreamGroup) -> tuple[TextKV, ...]:
        features = self._text.features(
            group.ids_BM.to(self._device), group.is_word_BM.to(self._device)
        )
        embedded = self._dit.embed_text(features)
        return tuple(self._dit.text_kv(i, embedded) for i in range(self._dit.facts.num_blocks))

    def _targets(self, group: StreamGroup) -> Tensor:
        """What the streams should show now, BFCHW; a real picture stands still."""
        frames = [self._target(group, row) for row in range(len(group.indices))]
        return torch.stack(frames)[:, None].to(self._device)

    def _target(self, group: StreamGroup, row: int) -> Tensor:
        index = group.indices[row]
        is_picture = self._pool.items[index].kind == "picture"
        if is_picture or (group.is_still[row] and group.age == 0):
            return self._pool.still(index).float()
        clip_FCHW = self._pool.target(index).float()
        if group.age - group.is_still[row] <= 0:
            return clip_FCHW[0]
        distances_F = (clip_FCHW - group.last[row]).square().mean(dim=(1, 2, 3))
        return clip_FCHW[(int(distances_F.argmin()) + 1) % LATENT_FRAMES]

    @torch.no_grad()
    def _begin(
        self, group: StreamGroup, texts: tuple[TextKV, ...], rng: np.random.Generator
    ) -> None:
        """The first chunk: the data, a still picture, or the model's own from pure noise."""
        targets = self._targets(group)
        self._chunk(group, texts, LADDERS[1], rng)
        own = torch.stack(group.last)[:, None].to(self._device)
        share = START_SHARES[1] / (START_SHARES[0] + START_SHARES[1])
        is_own = torch.tensor(
            [not still and rng.random() < share for still in group.is_still], device=self._device
        )[:, None, None, None, None]
        level = CONTEXT_NOISE * torch.from_numpy(rng.random(len(group.indices))).float()
        given = self._mix(targets, level.to(self._device)[:, None, None, None, None], rng)
        group.age, group.cells = 0, []
        self._keep(group, texts, torch.where(is_own, own, given))

    def _chunk(
        self,
        group: StreamGroup,
        texts: tuple[TextKV, ...],
        ladder: tuple[float, ...],
        rng: np.random.Generator,
    ) -> Tensor:
        """Denoise and keep one chunk; one step of the ladder, drawn at random, has gradients."""
        targets = self._targets(group)
        chosen = int(rng.integers(len(ladder)))
        loss, noisy = targets.new_zeros(()), self._mix(targets, torch.ones(()), rng)
        clean = noisy
        for step, sigma in enumerate(ladder):
            with torch.set_grad_enabled(step == chosen and torch.is_grad_enabled()):
                clean = self._forward(group, texts, noisy, 1000 * sigma)[0].float()
            if step == chosen:
                loss = (clean - targets).square().mean() / (sigma**2 + WEIGHT_FLOOR)
                clean = clean.detach()
            if step + 1 < len(ladder):
                noisy = self._mix(clean, torch.tensor(ladder[step + 1]), rng)
        self._keep(group, texts, clean)
        return loss

    def _keep(self, group: StreamGroup, texts: tuple[TextKV, ...], clean: Tensor) -> None:
        """The clean pass: put the chunk's keys and values into the window."""
        _, cell = self._forward(group, texts, clean, 0.0)
        group.last = list(clean.detach()[:, 0].cpu().unbind(0))
        held = [*group.cells, cell]
        group.cells = held[:SINKS] + held[SINKS:][-(RING - 1) :]
        group.age += 1

    def _forward(
        self, group: StreamGroup, texts: tuple[TextKV, ...], latents: Tensor, timestep: float
    ) -> tuple[Tensor, Cell]:
        """Clean prediction of one frame after the window's, and its own keys and values."""
        model = self._dit
        grid = model.grid(latents.shape[-2], latents.shape[-1])
        positions_BF = torch.arange(len(group.cells) + 1)[None]
        table = rope_table(positions_BF, grid, model.facts.head_dim, self._device)
        times = torch.full((latents.shape[0], 1), timestep, device=self._device)
        cond = model.condition(times, texts)
        no_condition = torch.zeros_like(latents)
        hidden_BLD = model.embed(torch.cat([latents, no_condition], dim=2))
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index in range(model.facts.num_blocks):
            kv = _TurnKV(
                [cell.keys[index] for cell in group.cells],
                [cell.values[index] for cell in group.cells],
                table,
            )
            hidden_BLD = model.block(index, hidden_BLD, cond, kv)
            assert kv.own is not None
            keys.append(kv.own[0])
            values.append(kv.own[1])
        return model.head(hidden_BLD, cond, grid), Cell(tuple(keys), tuple(values))

    def _mix(self, clean: Tensor, sigma: Tensor, rng: np.random.Generator) -> Tensor:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        sigma = sigma.to(clean.device)
        return (1 - sigma) * clean + sigma * noise
