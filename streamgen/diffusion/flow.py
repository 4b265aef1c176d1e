"""Moving latents along the straight path of flow matching: pure functions on tensors.

    x_sigma = (1 - sigma) * x_0 + sigma * noise        velocity = noise - x_0

(Lipman et al. 2023, arXiv:2210.02747, sec. 4.1, example II; Liu et al. 2023, arXiv:2209.03003.)
The precision of each function is that of the public reference (Self-Forcing 33593df,
utils/scheduler.py and utils/wan_wrapper.py). Knows no ladder and no model: levels come in as
tensors, one number a row, made by the caller.
"""

# B rows, F latent frames, C channels, H W latent height and width

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(clean_BFCHW: Tensor, noise_BFCHW: Tensor, sigma_B: Tensor) -> Tensor:
    """Move clean latents to noise level sigma, in float32; the result has the dtype of the latents.

    x_sigma = (1 - sigma) * x_0 + sigma * noise,  sigma in [0, 1]

    Raises ValueError if sigma_B does not have one entry a row.
    """
    sigma_B1111 = _a_row_each(sigma_B, clean_BFCHW, torch.float32)
    noisy_BFCHW = (1 - sigma_B1111) * clean_BFCHW.float() + sigma_B1111 * noise_BFCHW.float()
    return noisy_BFCHW.to(clean_BFCHW.dtype)


def velocity_to_clean(noisy_BFCHW: Tensor, velocity_BFCHW: Tensor, sigma_B: Tensor) -> Tensor:
    """Estimate clean latents from a velocity, in float64; the result has the velocity's dtype.

    x_0 = x_sigma - sigma * velocity

    Raises ValueError if sigma_B does not have one entry a row.
    """
    sigma_B1111 = _a_row_each(sigma_B, noisy_BFCHW, torch.float64)
    clean_BFCHW = noisy_BFCHW.double() - sigma_B1111 * velocity_BFCHW.double()
    return clean_BFCHW.to(velocity_BFCHW.dtype)


def clean_to_velocity(noisy_BFCHW: Tensor, clean_BFCHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The velocity that leads from x_sigma to these clean latents, in float64; their dtype.

    velocity = (x_sigma - x_0) / sigma,  sigma in (0, 1]: at sigma 0 the result is not finite

    Raises ValueError if sigma_B does not have one entry a row.
    """
    sigma_B1111 = _a_row_each(sigma_B, noisy_BFCHW, torch.float64)
    velocity_BFCHW = (noisy_BFCHW.double() - clean_BFCHW.double()) / sigma_B1111
    return velocity_BFCHW.to(clean_BFCHW.dtype)


def euler_step(
    noisy_BFCHW: Tensor, velocity_BFCHW: Tensor, *, sigma_B: Tensor, next_sigma_B: Tensor
) -> Tensor:
    """Follow the velocity from sigma to the next sigma, in float32; dtype of the latents.

    x_next = x_sigma + velocity * (next_sigma - sigma)

    Every row has its own next sigma, 0 for the row that is at its last step. Raises ValueError if
    a sigma does not have one entry a row.
    """
    sigma_B1111 = _a_row_each(sigma_B, noisy_BFCHW, torch.float32)
    next_sigma_B1111 = _a_row_each(next_sigma_B, noisy_BFCHW, torch.float32)
    moved_BFCHW = noisy_BFCHW.float() + velocity_BFCHW.float() * (next_sigma_B1111 - sigma_B1111)
    return moved_BFCHW.to(noisy_BFCHW.dtype)


def mix_input(latents: Tensor, noise: Tensor, scale: float) -> Tensor:
    """Start a video-to-video chunk: noise over its encoded input, in float32; any one shape.

    noise * scale + latents * (1 - scale)

    The share is linear in `scale` itself, which is not looked up in a schedule (StreamDiffusionV2
    c5a0f20, streamv2v/inference.py). Raises ValueError if `scale` is not in [0, 1] or the shapes
    differ.
    """
    if not 0 <= scale <= 1:
        raise ValueError(f"noise scale must lie in [0, 1], not {scale}")
    if latents.shape != noise.shape:
        raise ValueError(f"latents {tuple(latents.shape)} and noise {tuple(noise.shape)} differ")
    return (noise.float() * scale + latents.float() * (1 - scale)).to(latents.dtype)


def _a_row_each(sigma_B: Tensor, latents_BFCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Sigma in `dtype`, shaped to broadcast over the latents of its row."""
    rows = latents_BFCHW.shape[0]
    if sigma_B.shape != (rows,):
        raise ValueError(f"sigma needs shape ({rows},), one a row, not {tuple(sigma_B.shape)}")
    return sigma_B.to(dtype).reshape(rows, *(1 for _ in latents_BFCHW.shape[1:]))
