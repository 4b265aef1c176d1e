"""When a live input's next clip will be there, and when it will be due. Host floats only."""

from __future__ import annotations

from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.scheduling.deadlines import Deadlines
from streamgen.scheduling.lane import Demand
from streamgen.scheduling.plan import Candidate, Pass


def expected_clip(
    where: Pass, newest_s: float | None, demand: Demand, recipe: Recipe, deadlines: Deadlines
) -> Candidate | None:
    """The first pass of the clip that comes after those that wait, if one can be foreseen.

    Clips are taken to come as regularly as the session's rate says, the newest one having been
    captured at `newest_s`; None while there was none. A `joint` window's work grows with what is
    in it, so nothing is said of one.
    """
    if newest_s is None or recipe.mode is CacheMode.JOINT:
        return None
    captured_s = newest_s + demand.period_s
    return Candidate(
        where,
        ready_s=captured_s + demand.collect_s,
        num_rows=1 + recipe.has_negative(0),
        num_frames=recipe.num_frames(where.chunk),
        passes_left=demand.steps,
        due_s=deadlines.due_s(captured_s=captured_s, pts_s=0.0),
    )
