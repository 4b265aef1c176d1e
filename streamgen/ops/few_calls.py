"""The operations in as few calls of torch as there are: for CPUs and small models.

A small model on a CPU spends more time between operations than in them, so each function here says
the same as its definition in fewer calls. Results equal the definitions' up to rounding.

Legend: B rows, F latent frames, S tokens of a latent frame, L = F * S tokens, D model dim, N heads,
E head dim, P = E / 2 pairs.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from streamgen.ops.operations import PLAIN
from streamgen.ops.qkv import QKNorms, Ring
from streamgen.ops.rope import RopeTable


def norm_modulate(x_BLD: Tensor, shift_BFD: Tensor, scale_BFD: Tensor, eps: float) -> Tensor:
    """The norm's own weight and bias are scale and shift where all tokens share them."""
    rows, frames, dim = shift_BFD.shape
    gain_BFD = scale_BFD + 1
    if rows == frames == 1:
        return functional.layer_norm(x_BLD, (dim,), gain_BFD[0, 0], shift_BFD[0, 0], eps)
    normed_BLD = functional.layer_norm(x_BLD, (dim,), eps=eps)
    if frames == 1:
        return torch.addcmul(shift_BFD, normed_BLD, gain_BFD)
    normed_BFSD = normed_BLD.unflatten(1, (frames, -1))
    return torch.addcmul(shift_BFD[:, :, None], normed_BFSD, gain_BFD[:, :, None]).flatten(1, 2)


def gated_residual(x_BLD: Tensor, update_BLD: Tensor, gate_BFD: Tensor) -> Tensor:
    """One multiply-add."""
    frames = gate_BFD.shape[1]
    if frames == 1:
        return torch.addcmul(x_BLD, update_BLD, gate_BFD)
    x_BFSD, update_BFSD = (x.unflatten(1, (frames, -1)) for x in (x_BLD, update_BLD))
    return torch.addcmul(x_BFSD, update_BFSD, gate_BFD[:, :, None]).flatten(1, 2)


def rms_norm(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """The norm of a vector is one call, the square root of its mean square three."""
    norm_BL1 = torch.linalg.vector_norm(x_BLD, dim=-1, keepdim=True)
    share = 1 / x_BLD.shape[-1]
    scale_BL1 = torch.addcmul(_scalar(eps), norm_BL1, norm_BL1, value=share).rsqrt_()
    return torch.mul(x_BLD, scale_BL1).mul_(weight_D)


@lru_cache(maxsize=8)
def _scalar(value: float) -> Tensor:
    return torch.tensor(value)


def rotate(x_BLNE: Tensor, table: RopeTable) -> Tensor:
    """A pair of channels is a complex number, and its rotation one multiplication."""
    assert table.phase_BL1P is not None, "the table is not on a CPU"
    pairs_BLNP = torch.view_as_complex(x_BLNE.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs_BLNP * table.phase_BL1P).flatten(-2)


def norm_rotate_write(
    q_BLD: Tensor,
    k_BLD: Tensor,
    v_BLD: Tensor,
    norms: QKNorms,
    table: RopeTable,
    ring: Ring,
    rotates_keys: bool,
) -> Tensor:
    """What is stored is copied straight to its cell."""
    heads = (ring.keys_RGSNE.shape[-2], ring.keys_RGSNE.shape[-1])
    q_BLNE = rms_norm(q_BLD, norms.q_D, norms.eps).unflatten(-1, heads)
    k_BLNE = rms_norm(k_BLD, norms.k_D, norms.eps).unflatten(-1, heads)
    if rotates_keys:
        k_BLNE = rotate(k_BLNE, table)
    frames = ring.cells_BF.shape[1]
    where = (ring.rows_B1, ring.cells_BF)
    ring.keys_RGSNE.index_put_(where, k_BLNE.unflatten(1, (frames, -1)))
    ring.values_RGSNE.index_put_(where, v_BLD.unflatten(-1, heads).unflatten(1, (frames, -1)))
    return rotate(q_BLNE, table)


def to_bytes(pixels_TCHW: Tensor) -> Tensor:
    """In one piece of memory until they are bytes."""
    scaled_TCHW = torch.add(pixels_TCHW, 1).mul_(127.5).round_().clamp_(0, 255)
    return scaled_TCHW.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)


FEW_CALLS = dataclasses.replace(
    PLAIN,
    name="few calls",
    norm_modulate=norm_modulate,
    gated_residual=gated_residual,
    rms_norm=rms_norm,
    rotate=rotate,
    norm_rotate_write=norm_rotate_write,
    to_bytes=to_bytes,
)
"""For float32 on a CPU."""
