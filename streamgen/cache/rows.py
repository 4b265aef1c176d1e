"""Leases of cache rows. Host integers only; memory is never grown, a lease is refused instead."""

from __future__ import annotations

from streamgen.errors import CapacityError


class RowPool:
    """The rows of one KV cache; a lease is a run of neighbours, so that batches can be slices."""

    def __init__(self, num_rows: int) -> None:
        if num_rows < 1:
            raise ValueError(f"a cache needs at least one row, not {num_rows}")
        self._num_rows = num_rows
        self._taken: set[int] = set()

    @property
    def num_rows(self) -> int:
        return self._num_rows

    @property
    def num_free(self) -> int:
        return self._num_rows - len(self._taken)

    def lease(self, count: int) -> tuple[int, ...]:
        """Take `count` neighbouring rows, the lowest that are free.

        Raises CapacityError if there is no such run.
        """
        if count < 1:
            raise ValueError(f"a lease is of at least one row, not {count}")
        for first in range(self._num_rows - count + 1):
            rows = range(first, first + count)
            if self._taken.isdisjoint(rows):
                self._taken.update(rows)
                return tuple(rows)
        raise CapacityError(
            f"a session needs {count} neighbouring cache rows, {self.num_free} of {self._num_rows} "
            f"are free; close a session, use fewer denoise steps or raise engine.sessions"
        )

    def release(self, rows: tuple[int, ...]) -> None:
        """Give rows back; ValueError if one was not leased."""
        if not self._taken.issuperset(rows):
            raise ValueError(f"rows {sorted(set(rows) - self._taken)} were not leased")
        self._taken.difference_update(rows)
