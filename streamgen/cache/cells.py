"""Cells of one layer: keys and values as the model computes them, or as codes and scales.

Owns no memory: `streamgen.cache.kv` does, and says in which rows and cells a batch writes and
reads. What is quantised is quantised once, when it is written; a chunk reads itself as it is
stored, so that it looks the same to itself as to those that follow.

Legend: B rows of a batch, F latent frames of a chunk, S tokens of a latent frame, L = F * S,
R cache rows, G cells, M tokens of the cells read, N heads, E head dim, C stored numbers of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from streamgen.ops.operations import Operations
from streamgen.ops.qkv import QKNorms, Ring, write
from streamgen.ops.quantise import KVFormat
from streamgen.ops.rope import RopeTable

ALL_HEADS = slice(None)


@dataclass(frozen=True, slots=True)
class Target:
    """Cells of the rows of a batch, for each row as many."""

    rows_B1: Tensor
    cells_BF: Tensor


class LayerCells(Protocol):
    """Keys and values of one layer, in all rows and cells."""

    @property
    def num_heads(self) -> int: ...

    def write(self, target: Target, k_BLNE: Tensor, v_BLNE: Tensor) -> None:
        """Store the keys and values of every row's chunk."""
        ...

    def norm_rotate_write(
        self,
        target: Target,
        q_BLD: Tensor,
        k_BLD: Tensor,
        v_BLD: Tensor,
        norms: QKNorms,
        table: RopeTable,
        rotates_keys: bool,
    ) -> Tensor:
        """`streamgen.ops.qkv.norm_rotate_write` into these cells; returns q, BLNE."""
        ...

    def keys(
        self, rows: slice, num_cells: int, table: RopeTable | None, heads: slice = ALL_HEADS
    ) -> Tensor:
        """Keys of the first cells of neighbouring rows, rotated by `table` if given, BMNE."""
        ...

    def values(self, rows: slice, num_cells: int, heads: slice = ALL_HEADS) -> Tensor:
        """As `keys`."""
        ...

    def gathered(self, target: Target, heads: slice = ALL_HEADS) -> tuple[Tensor, Tensor]:
        """Keys and values, as they are stored, of any cells of any rows, copied, BGSNE each."""
        ...


class FullCells:
    """As the model computes them; read where they lie."""

    def __init__(self, store_2RGSNE: Tensor, operations: Operations) -> None:
        self._keys_RGSNE, self._values_RGSNE = store_2RGSNE.unbind(0)
        self._operations = operations

    @property
    def num_heads(self) -> int:
        return self._keys_RGSNE.shape[-2]

    def write(self, target: Target, k_BLNE: Tensor, v_BLNE: Tensor) -> None:
        write(self._ring(target), k_BLNE, v_BLNE)

    def norm_rotate_write(
        self,
        target: Target,
        q_BLD: Tensor,
        k_BLD: Tensor,
        v_BLD: Tensor,
        norms: QKNorms,
        table: RopeTable,
        rotates_keys: bool,
    ) -> Tensor:
        ring = self._ring(target)
        return self._operations.norm_rotate_write(
            q_BLD, k_BLD, v_BLD, norms, table, ring, rotates_keys
        )

    def keys(
        self, rows: slice, num_cells: int, table: RopeTable | None, heads: slice = ALL_HEADS
    ) -> Tensor:
        k_BMNE = self._keys_RGSNE[rows, :num_cells, :, heads].flatten(1, 2)
        return k_BMNE if table is None else self._operations.rotate(k_BMNE, table)

    def values(self, rows: slice, num_cells: int, heads: slice = ALL_HEADS) -> Tensor:
        return self._values_RGSNE[rows, :num_cells, :, heads].flatten(1, 2)

    def gathered(self, target: Target, heads: slice = ALL_HEADS) -> tuple[Tensor, Tensor]:
        where = (target.rows_B1, target.cells_BF)
        return self._keys_RGSNE[..., heads, :][where], self._values_RGSNE[..., heads, :][where]

    def _ring(self, target: Target) -> Ring:
        return Ring(self._keys_RGSNE, self._values_RGSNE, target.rows_B1, target.cells_BF)


class QuantisedCells:
    """As codes, and a scale for each token and head; a window is turned back when it is read."""

    def __init__(
        self,
        codes_2RGSNC: Tensor,
        scales_2RGSN: Tensor,
        kind: KVFormat,
        dtype: torch.dtype,
        operations: Operations,
    ) -> None:
        """Codes as bytes, whatever they are; `dtype` is the model's."""
        self._codes = codes_2RGSNC.unbind(0)
        self._scales = scales_2RGSN.unbind(0)
        self._kind = kind
        self._dtype = dtype
        self._operations = operations

    @property
    def num_heads(self) -> int:
        return self._scales[0].shape[-1]

    def write(self, target: Target, k_BLNE: Tensor, v_BLNE: Tensor) -> None:
        frames = target.cells_BF.shape[1]
        where = (target.rows_B1, target.cells_BF)
        for new_BLNE, codes, scales in zip(
            (k_BLNE, v_BLNE), self._codes, self._scales, strict=True
        ):
            codes_BLNC, scale_BLN = self._operations.quantise(new_BLNE, self._kind)
            codes.index_put_(where, codes_BLNC.view(torch.uint8).unflatten(1, (frames, -1)))
            scales.index_put_(where, scale_BLN.unflatten(1, (frames, -1)))

    def norm_rotate_write(
        self,
        target: Target,
        q_BLD: Tensor,
        k_BLD: Tensor,
        v_BLD: Tensor,
        norms: QKNorms,
        table: RopeTable,
        rotates_keys: bool,
    ) -> Tensor:
        """Through a ring of one chunk in full precision, by the same operation."""
        rows, frames = target.cells_BF.shape
        num_heads = self.num_heads
        shape = (rows, frames, k_BLD.shape[1] // frames, num_heads, k_BLD.shape[2] // num_heads)
        chunk = Ring(
            k_BLD.new_empty(shape),
            k_BLD.new_empty(shape),
            torch.arange(rows, device=k_BLD.device)[:, None],
            torch.arange(frames, device=k_BLD.device).expand(rows, -1),
        )
        q_BLNE = self._operations.norm_rotate_write(
            q_BLD, k_BLD, v_BLD, norms, table, chunk, rotates_keys
        )
        self.write(target, chunk.keys_RGSNE.flatten(1, 2), chunk.values_RGSNE.flatten(1, 2))
        return q_BLNE

    def keys(
        self, rows: slice, num_cells: int, table: RopeTable | None, heads: slice = ALL_HEADS
    ) -> Tensor:
        return self._read(0, rows, num_cells, table, heads)

    def values(self, rows: slice, num_cells: int, heads: slice = ALL_HEADS) -> Tensor:
        return self._read(1, rows, num_cells, None, heads)

    def gathered(self, target: Target, heads: slice = ALL_HEADS) -> tuple[Tensor, Tensor]:
        where = (target.rows_B1, target.cells_BF)
        keys, values = (
            decoded(codes[..., heads, :][where], scales[..., heads][where], self._kind,
                    self._dtype, self._operations)
            for codes, scales in zip(self._codes, self._scales, strict=True)
        )  # fmt: skip
        return keys, values

    def _read(
        self, which: int, rows: slice, num_cells: int, table: RopeTable | None, heads: slice
    ) -> Tensor:
        codes_BMNC = self._codes[which][rows, :num_cells, :, heads].flatten(1, 2)
        scale_BMN = self._scales[which][rows, :num_cells, :, heads].flatten(1, 2)
        codes_BMNC = codes_BMNC.view(self._kind.storage)
        return self._operations.dequantise_rotate(
            codes_BMNC, scale_BMN, self._kind, self._dtype, table
        )


def encoded(x_E: Tensor, kind: KVFormat, operations: Operations) -> tuple[Tensor, Tensor]:
    """Codes as bytes [..., C], and scales [...], of keys or values [..., E]."""
    codes_C, scale = operations.quantise(x_E, kind)
    return codes_C.view(torch.uint8), scale


def decoded(
    codes_C: Tensor, scale: Tensor, kind: KVFormat, dtype: torch.dtype, operations: Operations
) -> Tensor:
    """What `encoded` stored, [..., E], in `dtype`."""
    return operations.dequantise(codes_C.view(kind.storage), scale, kind, dtype)
