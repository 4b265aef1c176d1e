"""Which earlier chunks a chunk reads in `cascaded` mode, and how they come to be there. Integers.

A model trained on clean context makes one chunk at a time, so a pipeline of ranks stands idle.
Without training it may read context that is not clean yet: Block Cascading (Bandyopadhyay et al.
2025, arXiv:2511.20426). There a chunk reads whatever its predecessors have reached at that moment;
here it is fixed what that is, so that the picture does not depend on the schedule: a chunk trails
the one before it by `lag` passes, and at pass i it reads the chunk d before it as that one's pass
min(i + d lag, last) left it. The last pass is the clean one. With a lag of all steps everything
that is read is clean, with none it would be `per_step`.

Each pass has a cache row. When pass j of a chunk is over, its row holds exactly what pass j - lag
of the next chunk is to read, and that next chunk has not come there yet: so row j - lag takes it
over, and no earlier chunk has to be asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamgen.scheduling.plan import Pass

if TYPE_CHECKING:
    from streamgen.engine.recipe import Recipe


def step_before(recipe: Recipe, step: int) -> int:
    """The pass that the chunk before must have begun for a chunk to take `step`.

    Begun is enough: whatever carries batches keeps their order in every cache row.
    """
    if not recipe.mode.overlaps_chunks:
        return recipe.num_passes - 1
    return min(step + _lag(recipe), recipe.num_passes - 1)


def shared_rows(recipe: Recipe, step: int, is_negative: bool) -> tuple[int, ...]:
    """Rows of the session, on the same side, that take over what pass `step` has left in its own.

    Passes that have the last one next all take over from the last. Where a session has one row,
    its copies on other ranks take over what the context pass has written.
    """
    lag, last = _lag(recipe), recipe.num_passes - 1
    if not recipe.mode.overlaps_chunks:
        return (recipe.cache_row(step, is_negative),) if step == recipe.num_steps else ()
    if lag == 0:
        return ()
    sources = range(max(0, last - lag), last) if step == last else range(step - lag, step - lag + 1)
    return tuple(
        recipe.cache_row(source, is_negative)
        for source in sources
        if source >= 0 and (not is_negative or recipe.has_negative(source))
    )


def oldest_shared(recipe: Recipe, where: Pass) -> int:
    """The first latent frame that differs between the row of a pass and those that take over."""
    lag, last = _lag(recipe), recipe.num_passes - 1
    num_before = 0 if lag == 0 else -(-(last - where.step) // lag)
    return recipe.first_frame(max(0, where.chunk - num_before))


def _lag(recipe: Recipe) -> int:
    return recipe.lag if recipe.mode == "cascaded" else 0
