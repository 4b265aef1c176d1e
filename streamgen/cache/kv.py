"""The one tensor of keys and values, and self-attention over it.

Every pass writes its keys and values before it attends, so a chunk sees itself and its window.
Index arithmetic is done once a tick, for all layers: `KVCache.prepare` turns host placements into
a `CachePlan`, and `KVCache.layer` is then what one block attends through.

Legend: B rows of a batch, F latent frames of a chunk, S tokens of a latent frame, L = F * S,
R cache rows, G cells, M cached tokens, N heads, E head dim, P pairs of a head's channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from streamgen.cache.adaptive import AdaptiveSinks
from streamgen.cache.edits import apply_edit
from streamgen.cache.placement import Edit, Placement, Positions, QuerySpan
from streamgen.cache.recent import Recent
from streamgen.ops.modulation import rms_norm
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.qkv import QKNorms, Ring, write
from streamgen.ops.rope import RopeTable, TokenGrid, rope_table

NUM_PLANS = 16  # kept: with positions relative to the window they come round with its ring


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Sizes of a KV cache."""

    num_layers: int
    num_rows: int
    num_cells: int
    num_heads: int
    head_dim: int
    grid: TokenGrid

    def size_bytes(self, dtype: torch.dtype) -> int:
        """Memory that the cache takes."""
        tokens = self.num_layers * 2 * self.num_rows * self.num_cells * self.grid.num_tokens
        return tokens * self.num_heads * self.head_dim * dtype.itemsize


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring rows of a batch over neighbouring cache rows that read as many cells."""

    batch: slice
    rows: slice
    num_cells: int
    key_table: RopeTable | None
    """Rotates cached keys that were stored unrotated; None where they were stored rotated."""
    spans: tuple[QuerySpan, ...]
    """Where frames of one chunk read unequally much; empty: all read `num_cells`."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """Placements of one batch, ready for every layer."""

    rows_B1: Tensor
    cells_BF: Tensor
    may_replace_B1: Tensor | None
    """Which rows may take a sink's cell instead; None: there are no adaptive sinks."""
    query_table: RopeTable
    runs: tuple[Run, ...]


class KVCache:
    """Owns keys and values of all sessions on one stage, allocated once."""

    def __init__(
        self,
        shape: CacheShape,
        positions: Positions,
        *,
        device: torch.device,
        dtype: torch.dtype,
        operations: Operations = PLAIN,
        moves_sinks: bool = False,
        adaptive: AdaptiveSinks | None = None,
    ) -> None:
        """Keys are stored rotated where their positions never change: absolute ones, unless
        `moves_sinks` says that sinks get others in time. Else they are rotated when read."""
        self.shape = shape
        self._positions = positions
        self._rotates_late = moves_sinks or positions is Positions.WINDOW
        self._adaptive = adaptive
        self._device = device
        self._operations = operations
        self._plans: Recent[tuple[tuple[int, ...], tuple[Placement, ...]], CachePlan]
        self._plans = Recent(NUM_PLANS)
        sizes = (shape.num_rows, shape.num_cells, shape.grid.num_tokens)
        self._store = torch.zeros(
            (shape.num_layers, 2, *sizes, shape.num_heads, shape.head_dim),
            device=device,
            dtype=dtype,
        )

    def prepare(self, rows: Sequence[int], placements: Sequence[Placement]) -> CachePlan:
        """Turn host placements, one a row of the batch, into indices and tables on the device,
        and carry out their edits."""
        assert len(rows) == len(placements)
        for row, placement in zip(rows, placements, strict=True):
            self.edit(row, placement.edits)
        if self._positions is Positions.ABSOLUTE:
            return self._plan(rows, placements)  # positions of a stream never come again
        key = (tuple(rows), tuple(replace(placement, edits=()) for placement in placements))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(rows, placements)
            self._plans.put(key, plan)
        return plan

    def _plan(self, rows: Sequence[int], placements: Sequence[Placement]) -> CachePlan:
        cells = torch.tensor([placement.write_cells for placement in placements])
        positions_BF = torch.tensor([placement.query_positions for placement in placements])
        return CachePlan(
            rows_B1=torch.tensor(rows)[:, None].to(self._device, non_blocking=True),
            cells_BF=cells.to(self._device, non_blocking=True),
            may_replace_B1=self._may_replace(placements),
            query_table=self._table(positions_BF),
            runs=tuple(self._runs(rows, placements)),
        )

    def layer(self, index: int, plan: CachePlan) -> CachedAttention:
        """What block `index` of this stage attends through under a plan."""
        choose = None
        if self._adaptive is not None and plan.may_replace_B1 is not None:
            choose = partial(self._adaptive.choose, index, plan.may_replace_B1)
        return CachedAttention(
            self._store[index],
            plan,
            rotates_late=self._rotates_late,
            operations=self._operations,
            choose=choose,
        )

    def edit(self, row: int, edits: Sequence[Edit]) -> None:
        """Carry out a placement's edits of one row, in all layers."""
        for edit in edits:
            apply_edit(edit, self._store[:, :, row])

    def copy_cells(self, source: int, targets: Sequence[int], cells: Sequence[int]) -> None:
        """Copy cells of one row to other rows, in all layers."""
        for target in targets:
            for cell in cells:
                self._store[:, :, target, cell] = self._store[:, :, source, cell]

    def read_cells(self, row: int, cells: Sequence[int], layers: slice) -> Tensor:
        """A copy of cells of a row in some layers, [layer, 2, G, S, N, E], for another cache."""
        return self._store[layers, :, row][:, :, list(cells)]

    def write_cells(
        self, row: int, cells: Sequence[int], layers: slice, kept_R2GSNE: Tensor
    ) -> None:
        """Put in what `read_cells` of another cache gave."""
        self._store[layers, :, row][:, :, list(cells)] = kept_R2GSNE

    def snapshot(self, row: int, num_cells: int) -> Tensor:
        """A copy of the first cells of a row, [layer, 2, M, N, E], for tests and moves."""
        return self._store[:, :, row, :num_cells].flatten(2, 3).clone()

    def _may_replace(self, placements: Sequence[Placement]) -> Tensor | None:
        if self._adaptive is None:
            assert not any(placement.may_replace_sink for placement in placements)
            return None
        flags = torch.tensor([[placement.may_replace_sink] for placement in placements])
        return flags.to(self._device, non_blocking=True)

    def _table(self, positions_BF: Tensor) -> RopeTable:
        return rope_table(positions_BF, self.shape.grid, self.shape.head_dim, self._device)

    def _runs(self, rows: Sequence[int], placements: Sequence[Placement]) -> list[Run]:
        runs: list[Run] = []
        first = 0
        for last in range(len(rows)):
            following = last + 1
            if (
                following < len(rows)
                and rows[following] == rows[last] + 1
                and placements[following].num_cells == placements[last].num_cells
                and placements[following].spans == placements[last].spans
            ):
                continue
            keys_BG = torch.tensor([p.key_positions for p in placements[first:following]])
            runs.append(
                Run(
                    batch=slice(first, following),
                    rows=slice(rows[first], rows[last] + 1),
                    num_cells=placements[first].num_cells,
                    key_table=self._table(keys_BG) if self._rotates_late else None,
                    spans=placements[first].spans,
                )
            )
            first = following
        return runs


class CachedAttention:
    """A LayerKV over one layer of the cache, for the rows of one batch."""

    def __init__(
        self,
        store_2RGSNE: Tensor,
        plan: CachePlan,
        *,
        rotates_late: bool,
        operations: Operations,
        choose: Callable[[Ring, Tensor, Tensor], Tensor] | None,
    ) -> None:
        """`choose` says, from the ring and from keys as they are stored and values, BLNE, where
        to write; None: where the plan says."""
        keys_RGSNE, values_RGSNE = store_2RGSNE.unbind(0)
        self._ring = Ring(keys_RGSNE, values_RGSNE, plan.rows_B1, plan.cells_BF)
        self._plan = plan
        self._rotates_late = rotates_late
        self._operations = operations
        self._choose = choose

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        rotate, table = self._operations.rotate, self._plan.query_table
        if not self._rotates_late:
            k_BLNE = rotate(k_BLNE, table)
        if self._choose is None:
            write(self._ring, k_BLNE, v_BLNE)
        else:
            chosen_BF = self._choose(self._ring, k_BLNE, v_BLNE)
            write(replace(self._ring, cells_BF=chosen_BF), k_BLNE, v_BLNE)
        return self._attend_window(rotate(q_BLNE, table))

    def attend_projected(
        self, q_BLD: Tensor, k_BLD: Tensor, v_BLD: Tensor, norms: QKNorms
    ) -> Tensor:
        if self._choose is not None:
            heads = self._ring.keys_RGSNE.shape[-2:]
            q_BLNE = rms_norm(q_BLD, norms.q_D, norms.eps).unflatten(-1, heads)
            k_BLNE = rms_norm(k_BLD, norms.k_D, norms.eps).unflatten(-1, heads)
            return self.attend(q_BLNE, k_BLNE, v_BLD.unflatten(-1, heads))
        q_BLNE = self._operations.norm_rotate_write(
            q_BLD, k_BLD, v_BLD, norms, self._plan.query_table, self._ring, not self._rotates_late
        )
        return self._attend_window(q_BLNE)

    def _attend_window(self, q_BLNE: Tensor) -> Tensor:
        """Attention of rotated queries on what their rows hold."""
        parts = [self._attend_run(q_BLNE[run.batch], run) for run in self._plan.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend_run(self, q_BLNE: Tensor, run: Run) -> Tensor:
        k_BMNE = self._ring.keys_RGSNE[run.rows, : run.num_cells].flatten(1, 2)
        v_BMNE = self._ring.values_RGSNE[run.rows, : run.num_cells].flatten(1, 2)
        if run.key_table is not None:
            k_BMNE = self._operations.rotate(k_BMNE, run.key_table)
        attention = self._operations.attention
        if not run.spans:
            return attention(q_BLNE, k_BMNE, v_BMNE)
        per_cell = k_BMNE.shape[1] // run.num_cells
        seen = [span.num_cells * per_cell for span in run.spans]
        asked = q_BLNE.split([span.num_frames * per_cell for span in run.spans], dim=1)
        parts = [
            attention(q, k_BMNE[:, :end], v_BMNE[:, :end])
            for q, end in zip(asked, seen, strict=True)
        ]
        return torch.cat(parts, dim=1)
