"""Noise levels: what holds for every table and every ladder."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers

from streamgen.diffusion.schedule import Ladder, NoiseSchedule

SCHEDULE = NoiseSchedule(shift=5)


@given(shift=floats(1, 20), num_levels=integers(1, 300))
def test_table_falls_from_one_and_never_reaches_zero(shift, num_levels):
    sigmas = NoiseSchedule(shift=shift, num_levels=num_levels).sigmas
    assert len(sigmas) == num_levels
    assert 1 - 1e-6 <= sigmas[0] <= 1
    assert all(higher > lower for higher, lower in pairwise((*sigmas, 0.0)))


@given(timestep=floats(0, 1000))
def test_lookup_is_the_first_nearest_entry(timestep):
    distances = [abs(entry - timestep) for entry in SCHEDULE.timesteps]
    assert SCHEDULE.nearest_index(timestep) == distances.index(min(distances))


def test_a_timestep_midway_is_looked_up_to_the_noisier_entry():
    schedule = NoiseSchedule(shift=1, num_levels=4)
    assert schedule.timesteps == (1000.0, 750.0, 500.0, 250.0)
    assert schedule.sigma_at(625) == 0.75


@given(index=integers(0, 999))
def test_timestep_and_sigma_invert_each_other_on_the_table(index):
    assert SCHEDULE.timestep_at(SCHEDULE.sigmas[index]) == SCHEDULE.timesteps[index]
    assert SCHEDULE.sigma_at(SCHEDULE.timesteps[index]) == SCHEDULE.sigmas[index]


def test_timestep_zero_is_looked_up_to_the_last_sigma():
    assert SCHEDULE.sigma_at(0) == SCHEDULE.sigmas[-1] > 0


def test_a_schedule_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SCHEDULE.shift = 8  # pyright: ignore[reportAttributeAccessIssue]


def test_equal_schedules_are_equal_whether_or_not_their_tables_exist():
    assert NoiseSchedule(shift=5) == SCHEDULE
    assert hash(NoiseSchedule(shift=5)) == hash(SCHEDULE)


def test_plain_ladder_tells_the_named_timesteps_and_looks_sigmas_up():
    ladder = Ladder.plain(NoiseSchedule(shift=8), [700, 500])
    assert ladder.timesteps == (700.0, 500.0)
    assert ladder.sigmas == pytest.approx((0.70023239, 0.49971864), abs=1e-7)


def test_ladder_knows_where_each_step_leads():
    ladder = Ladder.warped(SCHEDULE, [1000, 750])
    assert ladder.num_steps == 2
    assert ladder.next_sigma(0) == ladder.sigmas[1] == 0.9375
    assert ladder.next_sigma(1) is None
    with pytest.raises(ValueError, match="step 2"):
        ladder.next_sigma(2)


@pytest.mark.parametrize("timesteps", [[], [500, 700], [500, 500], [1001], [500, -1]])
def test_a_ladder_that_does_not_fall_within_range_is_refused(timesteps):
    with pytest.raises(ValueError, match=r"ladder needs|must fall|must lie"):
        Ladder.plain(SCHEDULE, timesteps)


@pytest.mark.parametrize("step", [-1, 1001])
def test_a_step_outside_the_table_is_refused(step):
    with pytest.raises(ValueError, match=f"step {step}"):
        SCHEDULE.warp([step])


@pytest.mark.parametrize(
    ("shift", "num_levels"), [(0, 1000), (-1, 1000), (float("nan"), 9), (5, 0)]
)
def test_an_impossible_table_is_refused(shift, num_levels):
    with pytest.raises(ValueError, match="must be"):
        NoiseSchedule(shift=shift, num_levels=num_levels)
