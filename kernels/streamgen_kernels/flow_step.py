"""One step of the few-step sampler for a whole batch: `streamgen.ops.flow_step`.

Fused: clean latents and the noised ones of all rows in one pass, float32 inside (the definition
makes about eight kernels for each row).
Bytes moved, bfloat16 latents and float32 noise: 2 + 2 + 4 read, 2 + 2 written for each number; the
latents of a chunk are small (0.4 MB at 480x832), so what is saved is launches.
Gain: not measured on a GPU yet; `scripts/gpu_report.py` does, and writes it to benchmarks/.

Legend: B rows, F latent frames, C channels, H W latent height and width.
"""

# Triton turns what is annotated constexpr, and whole kernels, into something else than is written:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _flow_step(
    noisy_ptr, velocity_ptr, noise_ptr, sigma_ptr, next_sigma_ptr, clean_ptr, next_ptr, size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < size
    at = row * size + lane
    sigma = tl.load(sigma_ptr + row).to(tl.float32)
    next_sigma = tl.load(next_sigma_ptr + row).to(tl.float32)
    noisy = tl.load(noisy_ptr + at, mask=inside, other=0.0).to(tl.float32)
    velocity = tl.load(velocity_ptr + at, mask=inside, other=0.0).to(tl.float32)
    noise = tl.load(noise_ptr + at, mask=inside, other=0.0).to(tl.float32)
    clean = noisy - sigma * velocity
    noised = (1.0 - next_sigma) * clean + next_sigma * noise
    tl.store(clean_ptr + at, clean.to(clean_ptr.dtype.element_ty), mask=inside)
    tl.store(next_ptr + at, noised.to(next_ptr.dtype.element_ty), mask=inside)


def flow_step(
    noisy_BFCHW: Tensor,
    velocity_BFCHW: Tensor,
    noise_BFCHW: Tensor,
    sigma_B: Tensor,
    next_sigma_B: Tensor,
) -> tuple[Tensor, Tensor]:
    """Clean latents and the same noised to the next level, in noisy's dtype."""
    noisy_BFCHW = noisy_BFCHW.contiguous()
    clean_BFCHW, next_BFCHW = torch.empty_like(noisy_BFCHW), torch.empty_like(noisy_BFCHW)
    size = noisy_BFCHW[0].numel()
    _flow_step[(triton.cdiv(size, BLOCK), noisy_BFCHW.shape[0])](
        noisy_BFCHW, velocity_BFCHW.contiguous(), noise_BFCHW.contiguous(), sigma_B, next_sigma_B,
        clean_BFCHW, next_BFCHW, size, BLOCK=BLOCK,
    )  # fmt: skip
    return clean_BFCHW, next_BFCHW
