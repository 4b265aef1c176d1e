"""Norms and the per-frame modulation of a diffusion transformer.

Legend: B rows, F latent frames, L tokens (F frames of equal size), D model dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_norm(x_BLD: Tensor, eps: float) -> Tensor:
    """LayerNorm without weights, in float32; keeps the dtype of x."""
    return F.layer_norm(x_BLD.float(), (x_BLD.shape[-1],), eps=eps).to(x_BLD.dtype)


def rms_norm(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight, normalised in float32 (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    x32 = x_BLD.float()
    scale = torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + eps)
    return (x32 * scale).to(x_BLD.dtype) * weight_D


def modulate(x_BLD: Tensor, shift_BFD: Tensor, scale_BFD: Tensor) -> Tensor:
    """x * (1 + scale) + shift, each latent frame with its own.

    Peebles and Xie 2022, arXiv:2212.09748.
    """
    frames = shift_BFD.shape[1]
    x_BFSD = x_BLD.unflatten(1, (frames, -1))
    return (x_BFSD * (1 + scale_BFD[:, :, None]) + shift_BFD[:, :, None]).flatten(1, 2)


def gated_residual(x_BLD: Tensor, update_BLD: Tensor, gate_BFD: Tensor) -> Tensor:
    """x + update * gate, each latent frame with its own gate."""
    frames = gate_BFD.shape[1]
    update_BFSD = update_BLD.unflatten(1, (frames, -1))
    return x_BLD + (update_BFSD * gate_BFD[:, :, None]).flatten(1, 2)


def norm_modulate(x_BLD: Tensor, shift_BFD: Tensor, scale_BFD: Tensor, eps: float) -> Tensor:
    """LayerNorm without weights, then `modulate`: what every block and the head begin with."""
    return modulate(layer_norm(x_BLD, eps), shift_BFD, scale_BFD)
