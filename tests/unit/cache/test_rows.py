from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from streamgen.cache.rows import RowPool
from streamgen.errors import CapacityError


def test_a_lease_is_the_lowest_run_of_neighbours_that_is_free() -> None:
    pool = RowPool(6)
    first, second = pool.lease(2), pool.lease(1)
    assert (first, second) == ((0, 1), (2,))
    pool.release(first)
    assert pool.lease(3) == (3, 4, 5)
    assert pool.lease(1) == (0,)


def test_a_refusal_leaves_no_trace() -> None:
    """After CapacityError exactly the same rows are free, and the message says both numbers."""
    pool = RowPool(4)
    pool.lease(3)
    with pytest.raises(CapacityError, match="needs 2 neighbouring cache rows, 1 of 4 are free"):
        pool.lease(2)
    assert pool.num_free == 1
    assert pool.lease(1) == (3,)


def test_free_rows_that_are_no_neighbours_are_no_lease() -> None:
    pool = RowPool(3)
    low, middle, high = pool.lease(1), pool.lease(1), pool.lease(1)
    pool.release(low)
    pool.release(high)
    with pytest.raises(CapacityError):
        pool.lease(2)
    pool.release(middle)
    assert pool.lease(3) == (0, 1, 2)


def test_rows_that_were_not_leased_cannot_be_released() -> None:
    """Nor can half of such a release happen."""
    pool = RowPool(4)
    rows = pool.lease(2)
    with pytest.raises(ValueError, match=r"\[2\] were not leased"):
        pool.release((*rows, 2))
    assert pool.num_free == 2
    pool.release(rows)
    with pytest.raises(ValueError, match="were not leased"):
        pool.release(rows)


@pytest.mark.parametrize("count", [0, -1])
def test_pools_and_leases_of_no_rows_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        RowPool(count)
    with pytest.raises(ValueError, match="at least one row"):
        RowPool(3).lease(count)


@given(num_rows=integers(1, 12), actions=lists(integers(-6, 6), max_size=40))
def test_leases_never_overlap_and_come_back(num_rows: int, actions: list[int]) -> None:
    """Leasing (positive) and releasing (the rest) in any order: each row has at most one tenant,
    and in the end all of them can be had again."""
    pool = RowPool(num_rows)
    held: list[tuple[int, ...]] = []
    for action in actions:
        if action > 0:
            try:
                held.append(pool.lease(action))
            except CapacityError:
                assert not _has_free_run(num_rows, held, action)
        elif held:
            pool.release(held.pop(-action % len(held)))
        rows = [row for lease in held for row in lease]
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(range(num_rows))
        assert pool.num_free == num_rows - len(rows)
        assert all(lease == tuple(range(lease[0], lease[-1] + 1)) for lease in held)
    for lease in held:
        pool.release(lease)
    assert pool.lease(num_rows) == tuple(range(num_rows))


def _has_free_run(num_rows: int, held: list[tuple[int, ...]], count: int) -> bool:
    taken = {row for lease in held for row in lease}
    return any(
        taken.isdisjoint(range(first, first + count)) for first in range(num_rows - count + 1)
    )
