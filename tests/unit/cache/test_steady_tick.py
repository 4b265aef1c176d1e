"""What a steady tick allocates and touches: no copy of a window, nothing moved, one transfer."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from streamgen.cache.policies import BlendIntoSinks, Recache, WithinReach
from streamgen.cache.window import Positions
from streamgen.engine.recipe import CacheMode, CachePolicy
from streamgen.scheduling.policy import Sequential
from tests.small_engine import GRID, SmallEngine, small_dit, small_recipe

SINKS, RING = 4, 20  # so large a window that a copy of it stands out among a model's activations
CASES = {
    "clean": (CacheMode.CLEAN, CachePolicy()),
    "per_step": (CacheMode.PER_STEP, CachePolicy()),
    "recache": (CacheMode.CLEAN, CachePolicy(on_switch=Recache())),
    "adaptive": (CacheMode.PER_STEP, CachePolicy(sink_threshold=0.75)),
}


class Watch(TorchDispatchMode):
    """Records every operation's name, and the most numbers that one allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = {one.untyped_storage().data_ptr() for one in args if torch.is_tensor(one)}
        made = func(*args, **(kwargs or {}))
        self.calls[func.__name__] += 1
        for one in made if isinstance(made, tuple | list) else (made,):
            if torch.is_tensor(one) and one.untyped_storage().data_ptr() not in inputs:
                self.largest = max(self.largest, one.untyped_storage().nbytes() // one.itemsize)
        return made


def steady(
    mode: CacheMode, positions: Positions, cache: CachePolicy, *, num_blocks: int = 2
) -> SmallEngine:
    """An engine with one session whose window is full and whose last chunk is through."""
    model = small_dit(num_blocks=num_blocks)
    recipe = small_recipe(
        steps=2, mode=mode, sinks=SINKS, ring=RING, positions=positions, cache=cache
    )
    rig = SmallEngine(
        Sequential(),
        model=model,
        num_rows=2,
        num_cells=SINKS + RING,
        positions=positions,
        cache=cache,
        sinks_and_ring=(SINKS, RING),
    )
    stream = rig.open(recipe)
    session = stream.session
    while session.next_chunk < SINKS + RING + 2 or session.chunks[-1].next_step < recipe.num_passes:
        rig.tick()
    return rig


def watched_chunk(rig: SmallEngine) -> Watch:
    """All passes of one chunk."""
    with Watch() as watch:
        rig.tick(3)  # two steps and a clean pass; in `per_step` mode the next chunk's first step
    return watch


def changed_cells(rig: SmallEngine, before: Tensor) -> Tensor:
    """Which cells of the first row differ anywhere, in any layer."""
    return (rig.cache._store != before)[:, :, 0].flatten(3).any(-1).flatten(0, 1).any(0)


@pytest.mark.parametrize("name", list(CASES))
def test_no_operation_of_a_steady_tick_makes_a_copy_of_a_window(name: str) -> None:
    """Keys stored rotated are read where they lie: the largest thing that is made is a small part
    of one layer's keys of one window. So nothing is rolled, cloned or gathered."""
    mode, cache = CASES[name]
    rig = steady(mode, Positions.ABSOLUTE, cache)
    facts = rig.model.facts
    window = (SINKS + RING) * GRID.num_tokens * facts.num_heads * facts.head_dim
    watch = watched_chunk(rig)
    assert watch.calls["index_put_.default"] + watch.calls["_index_put_impl_.default"] > 0
    assert watch.largest < window / 3


@pytest.mark.parametrize("positions", list(Positions))
def test_a_steady_tick_writes_only_the_cells_of_its_chunk(positions: Positions) -> None:
    """Bit for bit, all other cells of all layers stay; late rotation reads and writes nothing."""
    rig = steady(CacheMode.CLEAN, positions, CachePolicy())
    before = rig.cache._store.clone()
    rig.tick(3)
    assert changed_cells(rig, before).sum() == 1


@pytest.mark.parametrize(
    ("cache", "positions"),
    [
        (CachePolicy(eviction=BlendIntoSinks(0.9)), Positions.WINDOW),
        (CachePolicy(sink_place=WithinReach(60)), Positions.ABSOLUTE),
    ],
)
def test_policies_write_the_new_cell_and_at_most_one_sink(
    cache: CachePolicy, positions: Positions
) -> None:
    rig = steady(CacheMode.CLEAN, positions, cache)
    before = rig.cache._store.clone()
    rig.tick(3)
    changed = changed_cells(rig, before)
    assert changed[:SINKS].sum() == (cache.eviction != CachePolicy().eviction)
    assert changed[SINKS:].sum() == 1


def test_indices_are_made_once_a_tick_not_once_a_layer() -> None:
    """A model of six blocks makes as many tensors from host numbers as one of two."""
    made = [
        watched_chunk(
            steady(CacheMode.CLEAN, Positions.ABSOLUTE, CachePolicy(), num_blocks=num_blocks)
        ).calls["lift_fresh.default"]
        for num_blocks in (2, 6)
    ]
    assert made[0] == made[1] > 0
