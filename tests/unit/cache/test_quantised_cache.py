"""A cache in 8 or 4 bits is near the full one, and is moved, copied and counted as it is stored."""

from __future__ import annotations

import pytest
import torch

from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.placement import CellsMoved, KeysTurned, Positions
from streamgen.cache.window import RollingWindow
from streamgen.engine.recipe import CachePolicy
from streamgen.ops.few_calls import FEW_CALLS
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.quantise import KVFormat
from streamgen.scheduling.policy import Sequential
from tests.small_engine import CPU, GRID, SmallEngine, small_dit, small_recipe
from tests.unit.cache.test_kv import forward, latents

MODEL = small_dit()
FORMATS = [KVFormat.FP8, KVFormat.INT8, KVFormat.INT4]
ERRORS = {KVFormat.FP8: 0.02, KVFormat.INT8: 0.005, KVFormat.INT4: 0.08}  # of outputs, relative


def new_cache(
    kind: KVFormat,
    positions: Positions = Positions.WINDOW,
    operations: Operations = PLAIN,
) -> KVCache:
    facts = MODEL.facts
    shape = CacheShape(facts.num_blocks, 3, 4, facts.num_heads, facts.head_dim, GRID)
    return KVCache(
        shape, positions, device=CPU, dtype=torch.float32, operations=operations, kind=kind
    )


def stream(cache: KVCache, rows: list[int], num_chunks: int = 6) -> torch.Tensor:
    """A stream in each row, of the row's own latents; outputs [row, frame, C, H, W]."""
    windows = [RollingWindow(sinks=1, ring=3, positions=cache._positions) for _ in rows]
    inputs = torch.stack([latents(row, num_chunks) for row in rows])
    chunks = [
        forward(MODEL, cache, rows, windows, frame, inputs[:, frame : frame + 1])
        for frame in range(num_chunks)
    ]
    return torch.cat(chunks, dim=1)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("positions", list(Positions))
@pytest.mark.parametrize("operations", [PLAIN, FEW_CALLS], ids=lambda one: one.name)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_stream_over_a_quantised_cache_is_near_the_full_one(
    kind: KVFormat, operations: Operations, positions: Positions
) -> None:
    full = stream(new_cache(KVFormat.FULL, positions), [0, 1])
    found = stream(new_cache(kind, positions, operations), [0, 1])
    assert 0 < relative(found, full) < ERRORS[kind]


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_of_a_quantised_cache_do_not_touch_each_other(kind: KVFormat) -> None:
    """Alone or beside others; a code may round the other way, so as near as it is to the full."""
    cache = new_cache(kind)
    together = stream(cache, [0, 2])
    alone = stream(new_cache(kind), [2])
    assert relative(together[1], alone[0]) < ERRORS[kind]
    assert not cache.snapshot(1, 4).any()


@pytest.mark.parametrize("kind", FORMATS)
def test_moved_and_copied_cells_are_exactly_what_they_were(kind: KVFormat) -> None:
    cache = new_cache(kind)
    stream(cache, [0, 1])
    before, size = cache.snapshot(0, 4), GRID.num_tokens
    cache.edit(0, [CellsMoved((1, 2), (2, 1))])
    moved = cache.snapshot(0, 4)
    assert torch.equal(moved[:, :, size : 2 * size], before[:, :, 2 * size : 3 * size])
    assert torch.equal(moved[:, :, 2 * size : 3 * size], before[:, :, size : 2 * size])
    cache.copy_cells(0, (2,), (0, 3))
    copied = cache.snapshot(2, 4)
    assert torch.equal(copied[:, :, :size], before[:, :, :size])
    assert torch.equal(copied[:, :, 3 * size :], before[:, :, 3 * size :])
    assert not copied[:, :, size : 3 * size].any()


@pytest.mark.parametrize("kind", FORMATS)
def test_cells_that_travel_to_another_cache_arrive_as_they_were(kind: KVFormat) -> None:
    cache, other = new_cache(kind), new_cache(kind)
    stream(cache, [1])
    other.write_cells(0, (0, 1, 2, 3), slice(0, 2), cache.read_cells(1, (0, 1, 2, 3), slice(0, 2)))
    torch.testing.assert_close(other.snapshot(0, 4), cache.snapshot(1, 4), atol=0, rtol=1e-6)


def test_turned_keys_are_turned_and_values_and_other_cells_stay() -> None:
    full, small = (new_cache(kind, Positions.ABSOLUTE) for kind in (KVFormat.FULL, KVFormat.INT8))
    for cache in (full, small):
        stream(cache, [0])
    before = small.snapshot(0, 4)
    for cache in (full, small):
        cache.edit(0, [KeysTurned((1, 3), -2)])
    found, size = small.snapshot(0, 4), GRID.num_tokens
    assert relative(found[:, 0], full.snapshot(0, 4)[:, 0]) < 0.02
    assert torch.equal(found[:, 1, :size], before[:, 1, :size])
    assert torch.equal(found[:, 0, :size], before[:, 0, :size])


@pytest.mark.parametrize("kind", list(KVFormat))
def test_the_size_of_a_cache_is_what_it_takes_in_every_format(kind: KVFormat) -> None:
    cache = new_cache(kind)
    kept = [cache._store, *([] if cache._scales is None else [cache._scales])]
    taken = sum(one.untyped_storage().nbytes() for one in kept)
    assert cache.shape.size_bytes(torch.float32, kind) == taken


def test_adaptive_sinks_compare_what_is_stored() -> None:
    """The engine runs over an 8-bit cache with the one policy that reads cells by itself."""
    policy = CachePolicy(sink_threshold=0.9)
    found: list[torch.Tensor] = []
    for kind in (KVFormat.FULL, KVFormat.INT8):
        rig = SmallEngine(
            Sequential(), num_rows=2, num_cells=4, cache=policy, sinks_and_ring=(1, 3), kind=kind
        )
        one = rig.open(small_recipe(cache=policy), max_chunks=8)
        rig.finish(one)
        found.append(torch.cat(one.latents))
    assert 0 < relative(found[1], found[0]) < 0.05
