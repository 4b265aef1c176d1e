"""Latents of the chunks in flight, and the step that takes them to the next noise level.

Legend: B rows, F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.diffusion.flow import add_noise, clean_to_velocity, velocity_to_clean
from streamgen.diffusion.guidance import negative_velocity
from streamgen.diffusion.noise import NoiseSource
from streamgen.engine.batch import Row, SlotKey, Started
from streamgen.models.base import DiTFacts, Prediction
from streamgen.ops.operations import FlowStep
from streamgen.ops.transfer import to_device
from streamgen.types import SessionId


@dataclass(slots=True, eq=False)
class DenoiseSlot:
    """One chunk in flight. After its last step the latents are the clean ones."""

    latents_FCHW: Tensor
    condition_FCHW: Tensor | None
    endpoint_FCHW: Tensor | None
    """Where the assumed negative path of guidance ends."""
    given_FCHW: Tensor | None
    """What the chunk's clean latents are, whatever is predicted; None: what is predicted."""


@dataclass(frozen=True, slots=True, eq=False)
class FinishedFrame:
    """One clean latent frame that a prelude may ask for again."""

    latents_CHW: Tensor
    condition_CHW: Tensor | None


class DenoiseSlots:
    """Owns the latents in flight of all sessions, on the last stage, and the finished ones that
    preludes may recall: at most one window of each session."""

    def __init__(
        self, facts: DiTFacts, noise: NoiseSource, flow_step: FlowStep | None = None
    ) -> None:
        """`flow_step` takes a whole batch without guidance to its next levels in one operation;
        None: row by row, in float64 where the public references are."""
        self._facts = facts
        self._noise = noise
        self._flow_step = flow_step
        self._slots: dict[SlotKey, DenoiseSlot] = {}
        self._finished: dict[SessionId, dict[int, FinishedFrame]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def admit(self, key: SlotKey, started: Started) -> None:
        self._slots[key] = DenoiseSlot(
            started.latents_FCHW,
            started.condition_FCHW,
            started.endpoint_FCHW,
            started.given_FCHW,
        )

    def drop_session(self, session: SessionId) -> None:
        for key in [key for key in self._slots if key.session == session]:
            del self._slots[key]
        self._finished.pop(session, None)

    def inputs(self, rows: Sequence[Row]) -> Tensor:
        """What the model reads for these rows: noisy latents, condition channels behind them."""
        by_row = [[self._latents(part) for part in row.parts] for row in rows]
        noisy_BFCHW = torch.stack([_joined(parts) for parts in by_row])
        if self._facts.condition_channels == 0:
            return noisy_BFCHW
        return torch.cat([noisy_BFCHW, self._conditions(rows, noisy_BFCHW)], dim=2)

    def advance(self, rows: Sequence[Row], predicted_BFCHW: Tensor) -> dict[SlotKey, Tensor]:
        """Take each chunk to its next level; returns the clean latents of those that finished.

        x_0 is read off the prediction, then noised anew to the next level: the stochastic few-step
        sampler of consistency models (Song et al. 2023, arXiv:2303.01469, algorithm 1).
        """
        if rows[0].recalls:
            return {}  # a prelude is over when the cache has been written
        if self._facts.prediction is Prediction.CHANGE and self._have_conditions(rows):
            predicted_BFCHW = predicted_BFCHW + self._conditions(rows, predicted_BFCHW)
        finished: dict[SlotKey, Tensor] = {}
        for chunks, predicted in _by_chunk(rows, predicted_BFCHW):
            finished |= self._advance(chunks, predicted)
        return finished

    def _advance(self, rows: Sequence[Row], predicted_BFCHW: Tensor) -> dict[SlotKey, Tensor]:
        """As `advance`, of rows that are a chunk each."""
        clean_BFCHW, next_BFCHW = self._step(rows, predicted_BFCHW)
        finished: dict[SlotKey, Tensor] = {}
        for index, (row, clean_FCHW) in enumerate(zip(rows, clean_BFCHW, strict=True)):
            if row.is_negative:
                continue
            slot = self._slots[row.key]
            is_given = slot.given_FCHW is not None
            if slot.given_FCHW is not None:
                clean_FCHW = slot.given_FCHW
            if not row.is_context and row.next_sigma is None:
                slot.latents_FCHW = clean_FCHW
                finished[row.key] = clean_FCHW
            elif row.next_sigma is not None:
                slot.latents_FCHW = (
                    self._noised(row, clean_FCHW)
                    if next_BFCHW is None or is_given
                    else next_BFCHW[index]
                )
            if row.is_final:
                self._remember(row)
                del self._slots[row.key]
        return finished

    def _latents(self, row: Row) -> Tensor:
        if not row.recalls:
            return self._slots[row.key].latents_FCHW
        finished = self._finished[row.where.session]
        return torch.stack([finished[frame].latents_CHW for frame in row.recalls])

    def _condition(self, row: Row) -> Tensor | None:
        if not row.recalls:
            return self._slots[row.key].condition_FCHW
        finished = self._finished[row.where.session]
        conditions = [finished[frame].condition_CHW for frame in row.recalls]
        zeros = [one for one in conditions if one is not None][:1]
        if not zeros:
            return None
        blank_CHW = torch.zeros_like(zeros[0])
        return torch.stack([blank_CHW if one is None else one for one in conditions])

    def _remember(self, row: Row) -> None:
        """Keep the clean frames of a finished chunk that preludes may recall, and let go of those
        that they no longer do."""
        if not row.remembers:
            return
        slot, frames = self._slots[row.key], self._finished.setdefault(row.where.session, {})
        for index, latents_CHW in enumerate(slot.latents_FCHW):
            condition = slot.condition_FCHW
            frames[row.first_frame + index] = FinishedFrame(
                latents_CHW, None if condition is None else condition[index]
            )
        for frame in frames.keys() - set(row.remembers):
            del frames[frame]

    def _have_conditions(self, rows: Sequence[Row]) -> bool:
        return any(self._condition(part) is not None for row in rows for part in row.parts)

    def _conditions(self, rows: Sequence[Row], like_BFCHW: Tensor) -> Tensor:
        """Condition latents of every row, zeros where there are none."""
        frames, _, height, width = like_BFCHW.shape[1:]
        shape = (frames, self._facts.condition_channels, height, width)
        zeros_FCHW = like_BFCHW.new_zeros(()).expand(shape)
        by_row: list[Tensor] = []
        for row in rows:
            parts = [(self._condition(part), part.chunk_frames) for part in row.parts]
            by_row.append(
                _joined([zeros_FCHW[:size] if one is None else one for one, size in parts])
            )
        return torch.stack(by_row)

    def _step(self, rows: Sequence[Row], predicted_BFCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Clean latents of all rows, and those of the next levels where one operation makes both;
        a row that has no next level has its clean latents there."""
        is_plain = not any(row.guidance.is_active or row.is_negative for row in rows)
        if (
            self._flow_step is None
            or self._facts.prediction is not Prediction.VELOCITY
            or not is_plain
        ):
            return self._clean(rows, predicted_BFCHW), None
        noisy_BFCHW = torch.stack([self._slots[row.key].latents_FCHW for row in rows])
        sigmas_2B = torch.tensor(
            [[row.level.sigma for row in rows], [row.next_sigma or 0.0 for row in rows]]
        )
        sigmas_2B = to_device(sigmas_2B, noisy_BFCHW.device)
        shape = tuple(noisy_BFCHW.shape[1:])
        noise_BFCHW = torch.stack([self._noise_of(row, shape) for row in rows])
        noise_BFCHW = to_device(noise_BFCHW, noisy_BFCHW.device)
        return self._flow_step(noisy_BFCHW, predicted_BFCHW, noise_BFCHW, *sigmas_2B.unbind(0))

    def _noise_of(self, row: Row, shape: tuple[int, ...]) -> Tensor:
        """What the next level is noised with, on the host; zeros where there is none."""
        if row.next_sigma is None:
            return torch.zeros(shape)
        return self._noise.noise(row.seed, row.where.chunk, row.where.step + 1, shape)

    def _clean(self, rows: Sequence[Row], predicted_BFCHW: Tensor) -> Tensor:
        """Clean latents of every row, after guidance where the row's session has one."""
        is_velocity = self._facts.prediction is Prediction.VELOCITY
        if not is_velocity and not any(row.guidance.is_active for row in rows):
            return predicted_BFCHW
        noisy_BFCHW = torch.stack([self._slots[row.key].latents_FCHW for row in rows])
        sigma_B = torch.tensor([row.level.sigma for row in rows], dtype=torch.float64)
        sigma_B = to_device(sigma_B, noisy_BFCHW.device)
        if is_velocity:
            velocity_BFCHW = predicted_BFCHW
            clean_BFCHW = velocity_to_clean(noisy_BFCHW, velocity_BFCHW, sigma_B)
        else:
            velocity_BFCHW = clean_to_velocity(noisy_BFCHW, predicted_BFCHW, sigma_B)
            clean_BFCHW = predicted_BFCHW.clone()
        self._guide(rows, noisy_BFCHW, velocity_BFCHW, sigma_B, clean_BFCHW)
        return clean_BFCHW

    def _guide(
        self,
        rows: Sequence[Row],
        noisy_BFCHW: Tensor,
        velocity_BFCHW: Tensor,
        sigma_B: Tensor,
        clean_BFCHW: Tensor,
    ) -> None:
        """Replace the clean latents of plain rows by guided ones; no other row is touched."""
        negative_of = {row.where: index for index, row in enumerate(rows) if row.is_negative}
        for index, row in enumerate(rows):
            if row.is_negative or row.is_context or not row.guidance.is_active:
                continue
            slot, one = self._slots[row.key], slice(index, index + 1)
            if row.where in negative_of:
                other = negative_of[row.where]
                negative_1FCHW = velocity_BFCHW[other : other + 1]
                if row.guidance.needs_endpoint(row.where.step + 1):
                    slot.endpoint_FCHW = clean_BFCHW[other].clone()
            elif slot.endpoint_FCHW is not None:
                negative_1FCHW = negative_velocity(
                    noisy_BFCHW[one], slot.endpoint_FCHW[None], sigma_B[one]
                )
            else:
                continue
            guided_1FCHW = row.guidance.combine(velocity_BFCHW[one], negative_1FCHW)
            clean_BFCHW[one] = velocity_to_clean(noisy_BFCHW[one], guided_1FCHW, sigma_B[one])

    def _noised(self, row: Row, clean_FCHW: Tensor) -> Tensor:
        assert row.next_sigma is not None
        noise_FCHW = self._noise_of(row, tuple(clean_FCHW.shape))
        sigma_B = to_device(torch.tensor([row.next_sigma]), clean_FCHW.device)
        noise_1FCHW = to_device(noise_FCHW, clean_FCHW.device)[None]
        return add_noise(clean_FCHW[None], noise_1FCHW, sigma_B)[0]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Chunks behind one another, [F, ...]."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _by_chunk(
    rows: Sequence[Row], predicted_BFCHW: Tensor
) -> Iterator[tuple[Sequence[Row], Tensor]]:
    """A prediction for every chunk of these rows, stacked with those of as many latent frames."""
    if not any(row.younger for row in rows):
        yield rows, predicted_BFCHW
        return
    parts = [part for row in rows for part in row.parts]
    sizes = [part.chunk_frames for part in parts]
    predicted = predicted_BFCHW.flatten(0, 1).split(sizes)
    for size in sorted(set(sizes)):
        own = [index for index, one in enumerate(sizes) if one == size]
        yield [parts[index] for index in own], torch.stack([predicted[index] for index in own])
