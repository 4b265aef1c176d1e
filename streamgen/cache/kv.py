"""The one tensor of keys and values, and self-attention over it.

Every pass writes its keys and values before it attends, so a chunk sees itself and its window.
Index arithmetic is done once a tick, for all layers: `KVCache.prepare` turns host placements into
a `CachePlan`, and `KVCache.layer` is then what one block attends through. Numbers may be kept in 8
or 4 bits (`KVFormat`), with one scale for each token and head in a tensor beside them.

Legend: B rows of a batch, F latent frames of a chunk, S tokens of a latent frame, L = F * S,
R cache rows, G cells, M cached tokens, N heads, E head dim, P pairs of a head's channels, C stored
numbers of a head: E, or E / 2 in 4 bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from streamgen.cache.adaptive import AdaptiveSinks
from streamgen.cache.cells import (
    FullCells,
    LayerCells,
    QuantisedCells,
    Target,
    decoded,
    encoded,
)
from streamgen.cache.edits import apply_edit, move_cells
from streamgen.cache.heads import HeadMeter
from streamgen.cache.placement import CellsMoved, Edit, Placement, Positions, QuerySpan
from streamgen.cache.recent import Recent
from streamgen.cache.shape import CacheShape
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.qkv import QKNorms
from streamgen.ops.quantise import KVFormat
from streamgen.ops.rope import RopeTable, rope_table
from streamgen.ops.transfer import to_device

Choose = Callable[[LayerCells, Target, Tensor, Tensor], Tensor]
"""From the cells, where the plan would write, and keys as they are stored and values, BLNE, to the
cells to write to, BF."""

NUM_PLANS = 16  # kept: with positions relative to the window they come round with its ring


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
        kind: KVFormat = KVFormat.FULL,
        num_past: Sequence[int] | None = None,
        meter: HeadMeter | None = None,
    ) -> None:
        """Keys are stored rotated where their positions never change: absolute ones, unless
        `moves_sinks` says that sinks get others in time. Else they are rotated when read. `kind`
        says in how many bits; `dtype` is the model's in any case. The first `num_past` heads of
        each layer see the window, the others their own chunk; None: all see the window. `meter`
        watches all attention, for calibration.
        """
        self.shape = shape
        self._positions = positions
        self._rotates_late = moves_sinks or positions is Positions.WINDOW
        self._adaptive = adaptive
        self._device = device
        self._operations = operations
        self._plans: Recent[tuple[tuple[int, ...], tuple[Placement, ...]], CachePlan]
        self._plans = Recent(NUM_PLANS)
        sizes = (shape.num_rows, shape.num_cells, shape.grid.num_tokens)
        self._kind = kind
        assert num_past is None or len(num_past) == shape.num_layers
        self._num_past = num_past
        self._meter = meter
        self._dtype = dtype
        is_full = kind is KVFormat.FULL
        heads = (shape.num_layers, 2, *sizes, shape.num_heads)
        self._store = torch.zeros(
            (*heads, shape.head_dim if is_full else kind.stored_channels(shape.head_dim)),
            device=device,
            dtype=dtype if is_full else torch.uint8,
        )
        self._scales = None if is_full else torch.zeros(heads, device=device)

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
            rows_B1=to_device(torch.tensor(rows)[:, None], self._device),
            cells_BF=to_device(cells, self._device),
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
            self._cells(index),
            plan,
            rotates_late=self._rotates_late,
            operations=self._operations,
            choose=choose,
            num_past=None if self._num_past is None else self._num_past[index],
            observe=None if self._meter is None else partial(self._meter.observe, index),
        )

    def _cells(self, index: int) -> LayerCells:
        if self._scales is None:
            return FullCells(self._store[index], self._operations)
        return QuantisedCells(
            self._store[index], self._scales[index], self._kind, self._dtype, self._operations
        )

    def edit(self, row: int, edits: Sequence[Edit]) -> None:
        """Carry out a placement's edits of one row, in all layers."""
        for edit in edits:
            if self._scales is None:
                apply_edit(edit, self._store[:, :, row])
            elif isinstance(edit, CellsMoved):
                move_cells(edit, self._store[:, :, row])
                move_cells(edit, self._scales[:, :, row])
            else:
                self._edit_quantised(row, edit)

    def _edit_quantised(self, row: int, edit: Edit) -> None:
        """Layer by layer: turned into full numbers, edited, and stored anew."""
        cells = edit.cells_changed
        assert self._scales is not None
        for layer in range(self.shape.num_layers):
            one = slice(layer, layer + 1)
            kept_12GSNE = self._decoded(self._store[one, :, row], self._scales[one, :, row])
            apply_edit(edit, kept_12GSNE)
            self.write_cells(row, cells, one, kept_12GSNE[:, :, list(cells)])

    def _decoded(self, codes_C: Tensor, scale: Tensor) -> Tensor:
        return decoded(codes_C, scale, self._kind, self._dtype, self._operations)

    def copy_cells(
        self,
        source: int,
        targets: Sequence[int],
        cells: Sequence[int],
        to_cells: Sequence[int] = (),
    ) -> None:
        """Copy cells of one row to other rows, in all layers; to the same cells unless told."""
        for kept in (self._store,) if self._scales is None else (self._store, self._scales):
            for target in targets:
                for cell, to_cell in zip(cells, to_cells or cells, strict=True):
                    kept[:, :, target, to_cell] = kept[:, :, source, cell]

    def read_cells(self, row: int, cells: Sequence[int], layers: slice) -> Tensor:
        """A copy of cells of a row in some layers, [layer, 2, G, S, N, E], for another cache."""
        chosen = list(cells)
        store_R2GSNC = self._store[layers, :, row][:, :, chosen]
        if self._scales is None:
            return store_R2GSNC
        return self._decoded(store_R2GSNC, self._scales[layers, :, row][:, :, chosen])

    def write_cells(
        self, row: int, cells: Sequence[int], layers: slice, kept_R2GSNE: Tensor
    ) -> None:
        """Put in what `read_cells` of another cache gave."""
        chosen = list(cells)
        if self._scales is None:
            self._store[layers, :, row][:, :, chosen] = kept_R2GSNE
            return
        codes_R2GSNC, scale_R2GSN = encoded(kept_R2GSNE, self._kind, self._operations)
        self._store[layers, :, row][:, :, chosen] = codes_R2GSNC
        self._scales[layers, :, row][:, :, chosen] = scale_R2GSN

    def read_layers(self, layers: slice) -> Tensor:
        """All rows of some layers, [layer, 2, R, G, S, N, E], for another cache."""
        if self._scales is None:
            return self._store[layers]
        return self._decoded(self._store[layers], self._scales[layers])

    def with_layers(self, parts: Sequence[slice | Tensor]) -> KVCache:
        """A cache of other layers with the same rows: layers of this one, and what `read_layers`
        of others gave, in the order of `parts`. Until this one is let go of, both are there.

        Raises ValueError where sinks are adaptive: each layer has decided for itself.
        """
        if self._adaptive is not None:
            raise ValueError("layers of adaptive sinks cannot move to another cache")
        other = copy.copy(self)
        if self._scales is None:
            kept = [self._store[part] if isinstance(part, slice) else part for part in parts]
            other._store = torch.cat(kept)
        else:
            pairs = [
                (self._store[part], self._scales[part])
                if isinstance(part, slice)
                else encoded(part, self._kind, self._operations)
                for part in parts
            ]
            other._store = torch.cat([codes for codes, _ in pairs])
            other._scales = torch.cat([scales for _, scales in pairs])
        other.shape = replace(self.shape, num_layers=other._store.shape[0])
        other._plans = Recent(NUM_PLANS)
        return other

    def snapshot(self, row: int, num_cells: int) -> Tensor:
        """A copy of the first cells of a row, [layer, 2, M, N, E], for tests and moves."""
        store = self._store[:, :, row, :num_cells].flatten(2, 3)
        if self._scales is None:
            return store.clone()
        return self._decoded(store, self._scales[:, :, row, :num_cells].flatten(2, 3))

    def _may_replace(self, placements: Sequence[Placement]) -> Tensor | None:
        if self._adaptive is None:
            assert not any(placement.may_replace_sink for placement in placements)
            return None
        flags = torch.tensor([[placement.may_replace_sink] for placement in placements])
        return to_device(flags, self._device)

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
        cells: LayerCells,
        plan: CachePlan,
        *,
        rotates_late: bool,
        operations: Operations,
        choose: Choose | None,
        num_past: int | None,
        observe: Callable[[Tensor, Tensor, Tensor], None] | None,
    ) -> None:
        """`choose` says where to write; None: where the plan says. The first `num_past` heads see
        the window, the others their own chunk; None: all see the window."""
        self._cells = cells
        self._target = Target(plan.rows_B1, plan.cells_BF)
        self._plan = plan
        self._rotates_late = rotates_late
        self._operations = operations
        self._choose = choose
        self._num_past = cells.num_heads if num_past is None else num_past
        self._observe = observe

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        rotate, table = self._operations.rotate, self._plan.query_table
        if not self._rotates_late:
            k_BLNE = rotate(k_BLNE, table)
        target = self._target
        if self._choose is not None:
            target = replace(target, cells_BF=self._choose(self._cells, target, k_BLNE, v_BLNE))
        self._cells.write(target, k_BLNE, v_BLNE)
        return self._attend(rotate(q_BLNE, table), target)

    def attend_projected(
        self, q_BLD: Tensor, k_BLD: Tensor, v_BLD: Tensor, norms: QKNorms
    ) -> Tensor:
        if self._choose is not None:
            heads = (self._cells.num_heads, -1)
            rms_norm = self._operations.rms_norm
            q_BLNE = rms_norm(q_BLD, norms.q_D, norms.eps).unflatten(-1, heads)
            k_BLNE = rms_norm(k_BLD, norms.k_D, norms.eps).unflatten(-1, heads)
            return self.attend(q_BLNE, k_BLNE, v_BLD.unflatten(-1, heads))
        q_BLNE = self._cells.norm_rotate_write(
            self._target, q_BLD, k_BLD, v_BLD, norms, self._plan.query_table,
            not self._rotates_late,
        )  # fmt: skip
        return self._attend(q_BLNE, self._target)

    def _attend(self, q_BLNE: Tensor, target: Target) -> Tensor:
        """Attention of rotated queries, each head on what it sees."""
        num_past = self._num_past
        if num_past == self._cells.num_heads:
            return self._attend_window(q_BLNE)
        own_BLNE = self._attend_chunk(q_BLNE[:, :, num_past:], target)
        if num_past == 0:
            return own_BLNE
        return torch.cat([self._attend_window(q_BLNE[:, :, :num_past]), own_BLNE], dim=2)

    def _attend_chunk(self, q_BLNE: Tensor, target: Target) -> Tensor:
        """Attention of the last heads on the chunk itself; on their own span where there are
        several in one placement."""
        k_BFSNE, v_BFSNE = self._cells.gathered(target, slice(self._num_past, None))
        k_BLNE, v_BLNE = k_BFSNE.flatten(1, 2), v_BFSNE.flatten(1, 2)
        if self._rotates_late:
            k_BLNE = self._operations.rotate(k_BLNE, self._plan.query_table)
        attention, num_tokens = self._operations.attention, k_BFSNE.shape[2]
        runs: list[Tensor] = []
        for run in self._plan.runs:
            sizes = [span.num_frames * num_tokens for span in run.spans] or q_BLNE.shape[1]
            parts = zip(*(x[run.batch].split(sizes, 1) for x in (q_BLNE, k_BLNE, v_BLNE)),
                        strict=True)  # fmt: skip
            runs += [torch.cat([attention(q, k, v) for q, k, v in parts], dim=1)]
        return torch.cat(runs)

    def _attend_window(self, q_BLNE: Tensor) -> Tensor:
        """Attention of rotated queries on what their rows hold."""
        parts = [self._attend_run(q_BLNE[run.batch], run) for run in self._plan.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend_run(self, q_BLNE: Tensor, run: Run) -> Tensor:
        heads = slice(0, self._num_past)
        k_BMNE = self._cells.keys(run.rows, run.num_cells, run.key_table, heads)
        v_BMNE = self._cells.values(run.rows, run.num_cells, heads)
        if self._observe is not None:
            self._observe(q_BLNE, k_BMNE, self._plan.cells_BF[run.batch])
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
