"""Flow-matching losses of the tiny DiT: clean prediction, per-frame noise, block-causal windows.

Legend: B windows, N latent frames, C H W latents, M words, D text features.
"""

from __future__ import annotations

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
WEIGHT_FLOOR = 0.05  # loss weight 1 / (sigma^2 + floor)


def draw_sigmas(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise levels: shifted uniform in [MIN_SIGMA, 1], and a share at exactly 1."""
    uniform = torch.rand(shape, generator=generator)
    sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
    is_full = torch.rand(shape, generator=generator) < FULL_NOISE_SHARE
    return torch.where(is_full, torch.ones(()), sigma).clamp(min=MIN_SIGMA)


def weighted_error(predicted_BNCHW: Tensor, batch: TrainingBatch, sigma_BN: Tensor) -> Tensor:
    """Mean squared error of the clean prediction, weighted 1 / (sigma^2 + floor) a frame."""
    error_BN = (predicted_BNCHW - batch.clean_BNCHW).square().mean(dim=(2, 3, 4))
    return (
        error_BN * batch.counts_BN / (sigma_BN.square() + WEIGHT_FLOOR)
    ).sum() / batch.counts_BN.sum()


def mix(clean_BNCHW: Tensor, sigma_BN: Tensor, generator: torch.Generator) -> Tensor:
    """Clean latents at the noise levels sigma."""
    noise = torch.randn(clean_BNCHW.shape, generator=generator)
    sigma = sigma_BN[:, :, None, None, None]
    return (1 - sigma) * clean_BNCHW + sigma * noise


def teacher_forcing_loss(
    model: WanDiT, text: TinyTextEncoder, batch: TrainingBatch, generator: torch.Generator
) -> Tensor:
    """Every frame is denoised with the clean frames before it: the `clean` cache mode.

    The sequence is [context of N - 1 clean frames, N noisy frames]; a noisy frame sees the clean
    ones before it and itself (teacher forcing as in CausVid, arXiv:2412.07772, sec. 4).
    """
    frames = batch.clean_BNCHW.shape[1]
    shape = (batch.clean_BNCHW.shape[0], frames)
    sigma_BN = draw_sigmas(shape, generator)
    context_sigma = CONTEXT_NOISE * torch.rand(shape, generator=generator)
    noisy = mix(batch.clean_BNCHW, sigma_BN, generator)
    context = mix(batch.clean_BNCHW, context_sigma, generator)[:, :-1]
    latents = torch.cat([context, noisy], dim=1)
    condition = torch.cat([batch.condition_BNCHW[:, :-1], batch.condition_BNCHW], dim=1)
    timesteps = torch.cat([torch.zeros(shape[0], frames - 1), 1000 * sigma_BN], dim=1)
    numbers = torch.arange(frames)
    positions = torch.cat([numbers[:-1], numbers])
    is_context = torch.arange(2 * frames - 1) < frames - 1
    sees_context = is_context[None] & (
        (positions[None] < positions[:, None])
        | (is_context[:, None] & (positions[None] == positions[:, None]))
    )
    mask_FF = sees_context | torch.eye(2 * frames - 1, dtype=torch.bool)
    predicted = forward_full(
        model,
        torch.cat([latents, condition], dim=2),
        timesteps,
        text.features(batch.ids_BM, batch.is_word_BM),
        positions_BF=positions[None],
        mask_FF=mask_FF,
    )
    return weighted_error(predicted[:, frames - 1 :], batch, sigma_BN)


def equal_noise_loss(
    model: WanDiT, text: TinyTextEncoder, batch: TrainingBatch, generator: torch.Generator
) -> Tensor:
    """All frames of a window at one noise level, block-causal: the `per_step` cache mode."""
    size, frames = batch.clean_BNCHW.shape[:2]
    sigma_BN = draw_sigmas((size, 1), generator).expand(size, frames)
    latents = mix(batch.clean_BNCHW, sigma_BN, generator)
    predicted = forward_full(
        model,
        torch.cat([latents, batch.condition_BNCHW], dim=2),
        1000 * sigma_BN,
        text.features(batch.ids_BM, batch.is_word_BM),
        positions_BF=torch.arange(frames)[None],
        mask_FF=torch.ones(frames, frames, dtype=torch.bool).tril(),
    )
    return weighted_error(predicted, batch, sigma_BN)
