"""Cache rows of one rank: those of its own passes only, and what it shares with other groups.

The engine leases rows of one big cache that nobody has: a rank holds the rows of the passes it
runs, under numbers of its own. In `clean` mode all passes of a session read one row, so each group
has a copy of it, and the group of the context pass publishes what it writes.

Legend: R layers, G cells, S tokens of a latent frame, N heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from streamgen.cache.kv import KVCache
from streamgen.clock import Clock
from streamgen.engine.batch import Row
from streamgen.errors import CapacityError
from streamgen.parallel.partition import Layout
from streamgen.parallel.ring import Arrival, Channel, Ring
from streamgen.types import SessionId


@dataclass(slots=True, eq=False)
class Publication:
    """Keys and values for some rows, on their way here: [R, 2, G, S, N, E] of some layers."""

    rows: tuple[int, ...]
    cells: tuple[int, ...]
    layers: range
    arrival: Arrival


class RankRows:
    """Owns the map from the engine's rows to the local ones; bound to one cache."""

    def __init__(self, rank: int, layout: Layout, cache: KVCache, ring: Ring) -> None:
        self._rank = rank
        self._layout = layout
        self._blocks = layout.blocks(rank)
        self._group = layout.place(rank)[0]
        self._cache = cache
        self._ring = ring
        self._local: dict[int, int] = {}
        self._session_of: dict[int, SessionId] = {}
        self._group_of: dict[int, int] = {}
        self._unclaimed: set[int] = set()
        self._due: list[Publication] = []

    def settle_all(self) -> None:
        """Write all that others have published so far."""
        for row in {row for due in self._due for row in due.rows}:
            self._settle_row(row)

    def move_to(self, layout: Layout, cache: KVCache) -> None:
        """Go on with other layers, in which the same rows lie; nothing may be due."""
        assert not self._due, "what is under way is for the layers before"
        self._layout, self._cache = layout, cache
        self._blocks = layout.blocks(self._rank)

    def see(self, rows: Sequence[Row]) -> None:
        """Learn from a batch which group works in which row, and give own ones a place."""
        for row in rows:
            group = self._layout.group_of(row.where.step)
            if self._session_of.get(row.cache_row) not in (None, row.where.session):
                self._free(row.cache_row)
            if row.cache_row in self._unclaimed and group != self._group:
                self._local.pop(row.cache_row, None)
            self._unclaimed.discard(row.cache_row)
            self._session_of[row.cache_row] = row.where.session
            self._group_of[row.cache_row] = group
            if group == self._group:
                self._place(row.cache_row)
            elif row.placement.edits and row.cache_row in self._local:
                self._settle_row(row.cache_row)  # a copy of another group's row is edited alike
                self._cache.edit(self._local[row.cache_row], row.placement.edits)

    def localised(self, rows: Sequence[Row]) -> list[Row]:
        """The same rows under the numbers of this rank's cache."""
        return [replace(row, cache_row=self._local[row.cache_row]) for row in rows]

    def publish(self, rows: Sequence[Row]) -> None:
        """Give what passes share to this cache's own rows, and send it to other groups' holders
        of these layers."""
        for row in rows:
            mine = [one for one in self._takers(row, self._group) if one != row.cache_row]
            local, cells = self._local[row.cache_row], row.shared_cells
            if mine:
                self._cache.copy_cells(local, [self._local[one] for one in mine], cells)
            for group in range(len(self._layout.groups)):
                if group == self._group or not self._takers(row, group):
                    continue
                for rank, layers in self._sharers(group):
                    kept = self._cache.read_cells(local, cells, self._own(layers))
                    self._ring.send(kept, rank, Channel.PUBLISHED)

    def expect(self, rows: Sequence[Row]) -> None:
        """Begin to receive what other groups will publish of these rows."""
        group = self._layout.group_of(rows[0].where.step)
        if group == self._group:
            return
        for row in rows:
            takers = self._takers(row, self._group)
            if not takers:
                continue
            for taker in takers:
                self._settle_row(taker)
                self._place(taker)
            for rank, layers in self._sharers(group):
                arrival = self._receive(row.shared_cells, layers, rank, Channel.PUBLISHED)
                self._due.append(Publication(takers, row.shared_cells, layers, arrival))

    def _takers(self, row: Row, group: int) -> tuple[int, ...]:
        """Rows of a group that get what a pass shares: copies of its own row are everybody's."""
        return tuple(
            one
            for one in row.shared_rows
            if one == row.cache_row or self._group_of.get(one) == group
        )

    def settle(self, rows: Sequence[Row], clock: Clock) -> float:
        """Write what others published for these rows; returns the seconds that it was waited."""
        began_s = clock.now()
        for row in {row.cache_row for row in rows}:
            self._settle_row(row)
        return clock.now() - began_s

    def copy(
        self,
        source: int,
        targets: Sequence[int],
        cells: tuple[int, ...],
        to_cells: tuple[int, ...],
    ) -> None:
        """Copy cells of a row to cells of rows that may be other groups'.

        Whose a new row will be shows only with its first pass: until then all groups keep it.
        """
        everyone = tuple(range(len(self._layout.groups)))
        origin = self._group_of.get(source, self._group if len(everyone) == 1 else None)
        assert origin is not None, "a row that no pass has worked in has nothing to copy"
        goals = {
            row: (self._group_of[row],) if row in self._group_of else everyone for row in targets
        }
        mine = [row for row, groups in goals.items() if self._group in groups]
        for row in mine:
            self._place(row)
        self._unclaimed.update(row for row, groups in goals.items() if groups == everyone)
        if origin == self._group:
            if mine:
                local = [self._local[row] for row in mine]
                self._cache.copy_cells(self._local[source], local, cells, to_cells)
            others = {group for groups in goals.values() for group in groups} - {self._group}
            for rank, layers in (one for group in sorted(others) for one in self._sharers(group)):
                kept = self._cache.read_cells(self._local[source], cells, self._own(layers))
                self._ring.send(kept, rank, Channel.COPIED)
        elif mine:
            for rank, layers in self._sharers(origin):
                arrival = self._receive(cells, layers, rank, Channel.COPIED)
                kept = arrival.wait()
                for row in mine:
                    self._cache.write_cells(self._local[row], to_cells, self._own(layers), kept)
                self._ring.release(arrival)

    def drop_session(self, session: SessionId) -> None:
        for row in [row for row, owner in self._session_of.items() if owner == session]:
            self._settle_row(row)  # a buffer may still be filling
            self._free(row)
            self._group_of.pop(row, None)

    def _place(self, row: int) -> None:
        if row in self._local:
            return
        taken = set(self._local.values())
        rows = (row, *range(self._cache.shape.num_rows))  # its own number first: runs stay runs
        free = next(
            (one for one in rows if one < self._cache.shape.num_rows and one not in taken), None
        )
        if free is None:
            raise CapacityError(
                f"rank {self._rank} has {len(taken)} cache rows, all taken; close a session or "
                f"raise engine.sessions"
            )
        self._local[row] = free

    def _free(self, row: int) -> None:
        self._local.pop(row, None)
        self._session_of.pop(row, None)

    def _sharers(self, only: int | None = None) -> list[tuple[int, range]]:
        """Ranks of other groups (or of one) that hold layers of this rank, and which."""
        shared: list[tuple[int, range]] = []
        for index, group in enumerate(self._layout.groups):
            if index == self._group or only not in (None, index):
                continue
            for rank, blocks in zip(group.ranks, group.blocks, strict=True):
                common = range(
                    max(blocks.start, self._blocks.start), min(blocks.stop, self._blocks.stop)
                )
                if common:
                    shared.append((rank, common))
        return shared

    def _own(self, layers: range) -> slice:
        return slice(layers.start - self._blocks.start, layers.stop - self._blocks.start)

    def _receive(self, cells: Sequence[int], layers: range, rank: int, channel: Channel) -> Arrival:
        shape = self._cache.shape
        sizes = (len(cells), shape.grid.num_tokens, shape.num_heads, shape.head_dim)
        return self._ring.receive((len(layers), 2, *sizes), rank, channel)

    def _settle_row(self, row: int) -> None:
        for due in [due for due in self._due if row in due.rows]:
            kept: Tensor = due.arrival.wait()
            for one in due.rows:
                self._cache.write_cells(self._local[one], due.cells, self._own(due.layers), kept)
            self._ring.release(due.arrival)
            self._due.remove(due)
