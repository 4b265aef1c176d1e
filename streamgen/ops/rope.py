"""Rotary position embedding over latent time, height and width.

Knows positions, not caches: the caller says at which temporal position each latent frame sits.

Legend: B rows, F latent frames, L tokens (F * H * W, W fastest), N heads, E head dim,
H, W token grid of one latent frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from streamgen.ops.transfer import to_device

THETA = (
    10_000.0  # base of the frequencies on every axis (Su et al. 2021, arXiv:2104.09864, sec. 3.4.3)
)


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Rows and columns of tokens in one latent frame."""

    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        return self.height * self.width


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Cosines and sines of the angle of every token and pair, float32 [B or 1, L, 1, E/2]."""

    cos_BL1P: Tensor
    sin_BL1P: Tensor
    phase_BL1P: Tensor | None = field(init=False)
    """cos + i sin, complex64: a rotation as one multiplication. On a CPU only."""

    def __post_init__(self) -> None:
        is_used = self.cos_BL1P.device.type == "cpu"
        phase = torch.complex(self.cos_BL1P, self.sin_BL1P) if is_used else None
        object.__setattr__(self, "phase_BL1P", phase)


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Split a head's channels over time, height and width, as Wan 2.1 does."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


@lru_cache(maxsize=16)
def _frequencies(dim: int) -> Tensor:
    return THETA ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


@lru_cache(maxsize=16)
def _spatial_angles_SP(grid: TokenGrid, height_dim: int, width_dim: int) -> Tensor:
    rows = torch.arange(grid.height, dtype=torch.float64)[:, None] * _frequencies(height_dim)
    columns = torch.arange(grid.width, dtype=torch.float64)[:, None] * _frequencies(width_dim)
    rows = rows[:, None].expand(-1, grid.width, -1)
    columns = columns[None].expand(grid.height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def rope_table(
    positions_BF: Tensor, grid: TokenGrid, head_dim: int, device: torch.device | str = "cpu"
) -> RopeTable:
    """Make the table for latent frames at integer temporal positions.

    Angles are computed in float64 and have no horizon: any position works. The split of the
    channels and the interleaved pairs (2j, 2j + 1) are Wan 2.1's
    (https://github.com/Wan-Video/Wan2.1/blob/main/wan/modules/model.py, rope_apply).
    """
    time_dim, height_dim, width_dim = axis_dims(head_dim)
    time_BFP = positions_BF.to("cpu", torch.float64)[..., None] * _frequencies(time_dim)
    space_SP = _spatial_angles_SP(grid, height_dim, width_dim)
    batch, frames, _ = time_BFP.shape
    angles = torch.cat(
        [
            time_BFP[:, :, None].expand(-1, -1, grid.num_tokens, -1),
            space_SP.expand(batch, frames, -1, -1),
        ],
        dim=-1,
    ).flatten(1, 2)[:, :, None]
    return RopeTable(
        cos_BL1P=to_device(angles.cos().float(), torch.device(device)),
        sin_BL1P=to_device(angles.sin().float(), torch.device(device)),
    )


def turn_table(num_frames: int, head_dim: int, device: torch.device | str = "cpu") -> RopeTable:
    """Turns what was rotated for one temporal position into what stands `num_frames` later.

    Rotations add up (Su et al. 2021, sec. 3.2.2); height and width are left alone. [1, 1, 1, P].
    """
    time_dim, height_dim, width_dim = axis_dims(head_dim)
    space_P = torch.zeros((height_dim + width_dim) // 2, dtype=torch.float64)
    angles = torch.cat([num_frames * _frequencies(time_dim), space_P])[None, None, None]
    return RopeTable(
        cos_BL1P=to_device(angles.cos().float(), torch.device(device)),
        sin_BL1P=to_device(angles.sin().float(), torch.device(device)),
    )


def rotate(x_BLNE: Tensor, table: RopeTable) -> Tensor:
    """Rotate each pair of channels by its token's angle, in float32; keeps the dtype of x.

    (a, b) -> (a cos - b sin, a sin + b cos)   (Su et al. 2021, arXiv:2104.09864, eq. 34)
    """
    pairs = x_BLNE.float().unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    rotated = torch.stack(
        (
            even * table.cos_BL1P - odd * table.sin_BL1P,
            even * table.sin_BL1P + odd * table.cos_BL1P,
        ),
        dim=-1,
    )
    return rotated.flatten(-2).to(x_BLNE.dtype)
