"""What a steady tick asks of the device, counted at the dispatcher: no wait, no copy of the window.

Legend: R cache rows, G cells.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from streamgen.cache.window import Positions
from streamgen.engine.recipe import CacheMode
from streamgen.scheduling.policy import StreamBatch
from tests.small_engine import SmallEngine, small_recipe

RING = 60  # cells, so that a window is far larger than anything that a chunk needs
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")


class Watch(TorchDispatchMode):
    """Counts operators by name, and numbers in memory that did not exist before."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.largest_new = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.calls[function._overloadpacket.__name__] += 1
        before = {one.untyped_storage().data_ptr() for one in _tensors([args, kwargs])}
        for one in _tensors(result):
            if one.untyped_storage().data_ptr() not in before:
                self.largest_new = max(self.largest_new, one.untyped_storage().nbytes() // 4)
        return result


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [one for item in value for one in _tensors(item)]
    return []


def watched(mode: CacheMode, positions: Positions) -> tuple[Watch, int]:
    """A stream whose window has rolled, watched for some ticks; and one row's keys, in numbers."""
    rig = SmallEngine(StreamBatch(), num_rows=2, num_cells=1 + RING, positions=positions)
    recipe = small_recipe(steps=2, mode=mode, sinks=1, ring=RING, positions=positions)
    rig.open(recipe, seed=1)
    rig.tick(3 * (RING + 4))
    shape = rig.cache.shape
    with Watch() as watch:
        rig.tick(6)
    return watch, shape.num_cells * shape.grid.num_tokens * shape.num_heads * shape.head_dim


@pytest.mark.parametrize(
    ("mode", "positions"),
    [
        *((mode, kind) for mode in (CacheMode.CLEAN, CacheMode.PER_STEP) for kind in Positions),
        (CacheMode.JOINT, Positions.WINDOW),
        (CacheMode.RECOMPUTE, Positions.WINDOW),
    ],
)
def test_no_operator_of_a_steady_tick_waits_or_rolls(mode: CacheMode, positions: Positions) -> None:
    """Every way to read a number back ends in one of these operators, `.item()` and all."""
    watch, _ = watched(mode, positions)
    assert watch.calls["linear"] + watch.calls["addmm"] > 10
    assert not [name for name in (*WAITING, "roll") if watch.calls[name]]


@pytest.mark.parametrize("mode", [CacheMode.CLEAN, CacheMode.PER_STEP])
def test_the_window_is_read_where_it_lies(mode: CacheMode) -> None:
    """Keys that were stored turned are neither copied nor moved: nothing as large appears."""
    watch, window = watched(mode, Positions.ABSOLUTE)
    assert 0 < watch.largest_new < window


def test_the_watch_sees_a_wait_and_a_copy() -> None:
    with Watch() as watch:
        float(torch.ones(10).roll(1).sum())
    assert watch.calls["_local_scalar_dense"] == 1
    assert watch.calls["roll"] == 1
    assert watch.largest_new == 10
