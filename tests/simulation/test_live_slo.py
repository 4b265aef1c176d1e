"""Real sessions of the tiny model under deadlines, on a clock that the model's forwards move.

The same as scripts/bench_slo_live.py measures on the machine's own clock.
"""

from __future__ import annotations

from typing import Any

import pytest

import bench_slo_live as live
from streamgen.clock import SimulatedClock

Told = dict[str, Any]
ROW_S = 0.2  # of a forward: few sessions fill it, so that an evening is a short test


@pytest.fixture(scope="module")
def crowd() -> Told:
    return live.overload(
        SimulatedClock(), policy="slo_aware", num_asked=7, seconds=16.0, row_s=ROW_S
    )


def test_overload_is_refused_and_nobody_inside_waits_longer_and_longer(crowd: Told) -> None:
    """Some get in at a lower quality, the rest are told when to come again; none is late."""
    assert 2 <= crowd["admitted"] < crowd["asked"]
    assert "try again in" in crowd["a_refusal"]
    assert crowd["level"] > 0
    assert crowd["missed_percent"] <= 1.0
    assert crowd["age_highest_s"] <= crowd["promised_s"]
    assert crowd["age_p99_second_half_s"] <= crowd["age_p99_first_half_s"] + 0.25
    assert crowd["pictures_a_second_each"] == pytest.approx(live.FPS, rel=0.1)


def test_a_slowdown_is_absorbed_by_the_ladder_and_undone() -> None:
    told: Told = live.slowdown(SimulatedClock(), num_viewers=2, seconds=10.0)
    assert told["answered_after_s"] <= 2.0
    assert told["age_p99_from_2_s_on_s"] <= told["promised_s"]
    assert told["undone_after_s"] is not None
    assert told["missed_percent"] <= 1.0


def test_the_ladder_stands_still_while_nothing_changes() -> None:
    told: Told = live.constant_load(SimulatedClock(), num_viewers=2, seconds=15.0)
    assert told["most_changes_in_10_s"] <= 1
    assert told["missed_percent"] <= 1.0


def test_pictures_are_the_same_alone_and_beside_others() -> None:
    """Rows do not see each other; other batch shapes round otherwise, by two levels at most."""
    told: Told = live.alone_and_beside(SimulatedClock(), num_clips=4)
    assert told["highest_difference_levels"] <= 2
    assert told["deviation_of_the_pictures_levels"] > 10
