"""What a placement does to the cells of a row before its forward: copies, blends, rotations.

Rare (a flush, a refresh) or small (one chunk's share of a moving average). Goes layer by layer, so
that what it holds beside the cache is a few cells of one layer.

Legend: R layers of this stage, G cells, S tokens of a latent frame, N heads, E head dim.
"""

from __future__ import annotations

from torch import Tensor

from streamgen.cache.placement import CellsBlended, CellsMoved, Edit, KeysTurned
from streamgen.ops.rope import rotate, turn_table


def apply_edit(edit: Edit, row_R2GSNE: Tensor) -> None:
    """Change one cache row in place, in all layers."""
    for layer_2GSNE in row_R2GSNE:
        match edit:
            case CellsMoved():
                move_cells(edit, layer_2GSNE[None])
            case CellsBlended(sources, targets, keep):
                for source, target in zip(sources, targets, strict=True):
                    _blend(layer_2GSNE[:, source], layer_2GSNE[:, target], keep)
            case KeysTurned(cells, frames):
                keys_GSNE = layer_2GSNE[0]
                table = turn_table(frames, keys_GSNE.shape[-1], keys_GSNE.device)
                for cell in cells:
                    keys_GSNE[cell] = rotate(keys_GSNE[cell][None], table)[0]


def move_cells(edit: CellsMoved, row_R2G: Tensor) -> None:
    """Whatever a cell holds, [R, 2, G, ...]."""
    for layer_2G in row_R2G:
        layer_2G[:, list(edit.targets)] = layer_2G[:, list(edit.sources)]


def _blend(source: Tensor, target: Tensor, keep: float) -> None:
    """In float32: a share of 0.001 is less than bfloat16 can add."""
    target.copy_(source.float().lerp(target.float(), keep))
