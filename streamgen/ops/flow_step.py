"""One step of the few-step sampler, for all rows of a batch at once.

The same arithmetic as `diffusion.flow.velocity_to_clean` and `add_noise`, in float32, whose results
differ from the float64 of the reference by less than bfloat16 can hold.

Legend: B rows, F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

from torch import Tensor


def flow_step(
    noisy_BFCHW: Tensor,
    velocity_BFCHW: Tensor,
    noise_BFCHW: Tensor,
    sigma_B: Tensor,
    next_sigma_B: Tensor,
) -> tuple[Tensor, Tensor]:
    """Clean latents, and the same latents noised anew to the next level; both in noisy's dtype.

    x_0 = x_sigma - sigma * velocity;  x_next = (1 - next_sigma) * x_0 + next_sigma * noise

    Sources: Lipman et al. 2023, arXiv:2210.02747, sec. 4.1; Song et al. 2023, arXiv:2303.01469,
    algorithm 1.
    """
    shape = (-1, *(1 for _ in noisy_BFCHW.shape[1:]))
    sigma, next_sigma = sigma_B.float().reshape(shape), next_sigma_B.float().reshape(shape)
    clean = noisy_BFCHW.float() - sigma * velocity_BFCHW.float()
    noised = (1 - next_sigma) * clean + next_sigma * noise_BFCHW.float()
    return clean.to(noisy_BFCHW.dtype), noised.to(noisy_BFCHW.dtype)
