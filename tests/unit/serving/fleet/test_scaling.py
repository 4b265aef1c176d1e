"""How many replicas there should be: a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from streamgen.serving.fleet.scaling import Scaling
from streamgen.serving.gateway.bodies import Load, State


def load(sessions: int, capacity: int, state: State = State.READY) -> Load:
    return Load(state=state, sessions=sessions, waiting=0, places=8, capacity=capacity)


@pytest.mark.parametrize(
    ("loads", "waiting", "wanted"),
    [
        ([], 0, 1),
        ([load(0, 0, State.STARTING)], 9, 1),  # nobody has said yet what one can do
        ([load(0, 4)], 0, 1),
        ([load(3, 4)], 0, 1),
        ([load(4, 4)], 0, 2),
        ([load(4, 4)], 8, 4),
        ([load(8, 4), load(8, 4)], 20, 6),  # no more than the most
        ([load(1, 4), load(1, 4), load(1, 4)], 0, 1),
        ([load(4, 4), load(4, 4, State.DRAINING)], 0, 3),  # who moves needs a place, too
    ],
)
def test_as_many_as_the_sessions_need(loads: list[Load], waiting: int, wanted: int):
    assert Scaling(least=1, most=6).wanted(loads, waiting=waiting) == wanted


@given(sessions=lists(integers(0, 8), min_size=1, max_size=6), waiting=integers(0, 40))
def test_what_is_wanted_holds_all_sessions_or_is_the_most(sessions: list[int], waiting: int):
    scaling = Scaling(least=1, most=10)
    wanted = scaling.wanted([load(each, 4) for each in sessions], waiting=waiting)
    assert wanted == 10 or wanted * 4 >= sum(sessions) + waiting
    assert 1 <= wanted <= 10
