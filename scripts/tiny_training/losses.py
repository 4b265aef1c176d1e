"""Flow-matching losses of the tiny DiT: change as prediction, noise per frame, causal windows.

Two kinds of window, one for each cache mode; and for each, plain or self-forced inputs.

Legend: B windows, N latent frames, C H W latents, M words, D text features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.models.full_sequence import forward_full
from streamgen.models.tiny.text import TinyTextEncoder
from streamgen.models.wan.dit import WanDiT
from tiny_training.batches import TrainingBatch

SHIFT = 3.0  # of the noise levels drawn; the same as the shipped ladder's
MIN_SIGMA = 0.08  # the shipped ladders end above it
FULL_NOISE_SHARE = 0.2  # of levels drawn exactly at 1
CONTEXT_NOISE = 0.15  # highest noise on clean context: a stream's own past is never quite clean
OWN_CONTEXT_SHARE = 0.6  # of self-forced context frames that are the model's own prediction
WEIGHT_FLOOR = 0.05  # loss weight 1 / (sigma^2 + floor)
FIRST_SIGMAS = (1.0, 1.0, 0.9, 0.75)  # levels that a self-forced window's first step starts from
FALL = (0.5, 0.95)  # range of the factor from there to its second step


@dataclass(frozen=True, slots=True)
class Windows:
    """A batch of windows with everything that a forward needs, and its own chance."""

    model: WanDiT
    text: TinyTextEncoder
    batch: TrainingBatch
    generator: torch.Generator

    @property
    def device(self) -> torch.device:
        return self.batch.clean_BNCHW.device

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch.clean_BNCHW.shape[0], self.batch.clean_BNCHW.shape[1]

    def uniform(self, *shape: int) -> Tensor:
        """Chance is drawn on the host, so that a run is the same on every device."""
        return torch.rand(shape, generator=self.generator).to(self.device)

    def mix(self, clean_BNCHW: Tensor, sigma_BN: Tensor) -> Tensor:
        """Latents at the noise levels sigma."""
        noise = torch.randn(clean_BNCHW.shape, generator=self.generator).to(self.device)
        sigma = sigma_BN[:, :, None, None, None]
        return (1 - sigma) * clean_BNCHW + sigma * noise

    def forward(
        self,
        latents: Tensor,
        condition: Tensor,
        timesteps: Tensor,
        positions: Tensor,
        mask_FF: Tensor,
    ) -> Tensor:
        """Clean predictions of a sequence: the model writes their change from the condition."""
        change = forward_full(
            self.model,
            torch.cat([latents, condition], dim=2),
            timesteps,
            self.text.features(self.batch.ids_BM, self.batch.is_word_BM),
            positions_BF=positions[None],
            mask_FF=mask_FF,
        )
        return change + condition


Predictor = Callable[[Windows, Tensor, Tensor, Tensor], Tensor]
"""(windows, noisy_BNCHW, context_BNCHW, sigma_BN) -> clean prediction, BNCHW."""


def predict_from_clean(
    windows: Windows, noisy_BNCHW: Tensor, context_BNCHW: Tensor, sigma_BN: Tensor
) -> Tensor:
    """Every frame with the clean frames before it: the `clean` cache mode.

    The sequence is [context of N - 1 frames, N noisy frames]; a noisy frame sees the context
    before it and itself (teacher forcing as in CausVid, arXiv:2412.07772, sec. 4).
    """
    frames = windows.shape[1]
    numbers = torch.arange(frames, device=windows.device)
    positions = torch.cat([numbers[:-1], numbers])
    is_context = torch.arange(2 * frames - 1, device=windows.device) < frames - 1
    is_earlier = positions[None] < positions[:, None]
    is_same = positions[None] == positions[:, None]
    sees_context = is_context[None] & (is_earlier | (is_context[:, None] & is_same))
    condition = windows.batch.condition_BNCHW
    predicted = windows.forward(
        torch.cat([context_BNCHW[:, :-1], noisy_BNCHW], dim=1),
        torch.cat([condition[:, :-1], condition], dim=1),
        torch.cat([torch.zeros_like(sigma_BN[:, 1:]), 1000 * sigma_BN], dim=1),
        positions,
        sees_context | torch.eye(2 * frames - 1, dtype=torch.bool, device=windows.device),
    )
    return predicted[:, frames - 1 :]


def predict_from_equal(
    windows: Windows, noisy_BNCHW: Tensor, context_BNCHW: Tensor, sigma_BN: Tensor
) -> Tensor:
    """All frames of a window at one noise level, block-causal: the `per_step` cache mode."""
    frames = windows.shape[1]
    return windows.forward(
        noisy_BNCHW,
        windows.batch.condition_BNCHW,
        1000 * sigma_BN,
        torch.arange(frames),
        torch.ones(frames, frames, dtype=torch.bool, device=windows.device).tril(),
    )


def plain_loss(windows: Windows, predict: Predictor) -> Tensor:
    """Denoise what the data became under noise."""
    sigma_BN = _sigmas(windows, predict)
    noisy = windows.mix(windows.batch.clean_BNCHW, sigma_BN)
    context = windows.mix(windows.batch.clean_BNCHW, _context_sigmas(windows))
    return _weighted_error(predict(windows, noisy, context, sigma_BN), windows.batch, sigma_BN)


def self_forced_loss(windows: Windows, predict: Predictor) -> Tensor:
    """Denoise what the model's own previous step became under noise, after its own past.

    A first step without gradients predicts clean frames; its predictions, noised anew, are the
    inputs of a second step, and take the place of part of its context. So few steps, and streams
    that live on their own output, are trained as they run (the idea of Self-Forcing,
    arXiv:2506.08009, cut to one step of roll-out, with regression to the data as the loss).
    """
    clean = windows.batch.clean_BNCHW
    size, frames = windows.shape
    columns = 1 if predict is predict_from_equal else frames
    starts = torch.tensor(FIRST_SIGMAS)
    picks = torch.randint(len(starts), (size, columns), generator=windows.generator)
    first_BN = starts[picks].expand(size, frames).to(windows.device)
    with torch.no_grad():
        context = windows.mix(clean, _context_sigmas(windows))
        own = predict(windows, windows.mix(clean, first_BN), context, first_BN).float()
    fall = FALL[0] + (FALL[1] - FALL[0]) * windows.uniform(size, columns)
    second_BN = (first_BN * fall).expand(size, frames)
    is_own = windows.uniform(size, frames, 1, 1, 1) < OWN_CONTEXT_SHARE
    mixed = torch.where(is_own, own, clean)
    context = windows.mix(mixed, _context_sigmas(windows))
    predicted = predict(windows, windows.mix(own, second_BN), context, second_BN)
    return _weighted_error(predicted, windows.batch, second_BN)


def _sigmas(windows: Windows, predict: Predictor) -> Tensor:
    """Noise levels: shifted uniform in [MIN_SIGMA, 1], a share exactly 1; one or N a window."""
    size, frames = windows.shape
    columns = 1 if predict is predict_from_equal else frames
    uniform = windows.uniform(size, columns)
    sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
    is_full = windows.uniform(size, columns) < FULL_NOISE_SHARE
    sigma = torch.where(is_full, torch.ones_like(sigma), sigma).clamp(min=MIN_SIGMA)
    return sigma.expand(size, frames)


def _context_sigmas(windows: Windows) -> Tensor:
    return CONTEXT_NOISE * windows.uniform(*windows.shape)


def _weighted_error(predicted_BNCHW: Tensor, batch: TrainingBatch, sigma_BN: Tensor) -> Tensor:
    """Mean squared error of the clean prediction, weighted 1 / (sigma^2 + floor) a frame."""
    error_BN = (predicted_BNCHW - batch.clean_BNCHW).square().mean(dim=(2, 3, 4))
    weight_BN = batch.counts_BN / (sigma_BN.square() + WEIGHT_FLOOR)
    return (error_BN * weight_BN).sum() / batch.counts_BN.sum()
