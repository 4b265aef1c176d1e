"""Controllers of the start level: bounds, memory, and independence of sessions."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, lists

from streamgen.diffusion.noise_control import (
    FixedNoiseController,
    MotionNoiseController,
    NoiseController,
    StartLevel,
)

SHAPE_TCHW = (4, 3, 4, 4)


def clip(brightness: float) -> torch.Tensor:
    return torch.full(SHAPE_TCHW, brightness)


def levels(controller: NoiseController, brightnesses: list[float]) -> list[StartLevel]:
    return [controller.next(clip(brightness)) for brightness in brightnesses]


@given(brightnesses=lists(floats(-1, 1, width=32), min_size=1, max_size=12))
def test_the_scale_stays_between_still_and_full_motion(brightnesses):
    for level in levels(MotionNoiseController(0.8, first_timestep=700), brightnesses):
        assert 0.7 - 1e-9 <= level.scale <= 0.8 + 1e-9
        assert 0 <= level.timestep <= 700


def test_a_still_input_keeps_the_first_level():
    for level in levels(MotionNoiseController(0.8, first_timestep=700), [0.3] * 5):
        assert level.scale == pytest.approx(0.8)
        assert level.timestep == 700


def test_motion_lowers_the_noise_and_stillness_brings_it_back():
    scales = [
        level.scale
        for level in levels(MotionNoiseController(0.8, first_timestep=700), [0, 1, 0, 0, 0, 0])
    ]
    assert scales[0] == 0.8
    assert scales[1] == pytest.approx(0.9 * 0.7 + 0.1 * 0.8)
    assert scales[2] < scales[1] < scales[3] < scales[4] < scales[5] < 0.8


def test_the_told_timestep_never_falls_below_the_bound():
    """Else the first step of a ladder could lie below its second one."""
    controller = MotionNoiseController(0.7, first_timestep=700, lowest_timestep=550)
    told = [level.timestep for level in levels(controller, [0, 1, 0, 1, 0])]
    assert min(told) == 550


def test_the_controller_does_not_hold_on_to_the_callers_frames():
    controller = MotionNoiseController(0.8, first_timestep=700)
    pixels = clip(0.0)
    controller.next(pixels)
    pixels.fill_(1.0)
    assert controller.next(clip(0.0)).scale == pytest.approx(0.8)


def test_sessions_do_not_share_state():
    moved = MotionNoiseController(0.8, first_timestep=700)
    levels(moved, [0, 1, 0])
    fresh = MotionNoiseController(0.8, first_timestep=700)
    assert fresh.next(clip(1.0)) == StartLevel(0.8, 700)


def test_a_fixed_controller_ignores_the_picture():
    level = StartLevel(scale=0.6, timestep=500)
    assert levels(FixedNoiseController(level), [0, 1, -1]) == [level] * 3


@pytest.mark.parametrize(("scale", "timestep"), [(-0.1, 0), (1.1, 0), (0.5, -1), (0.5, 1001)])
def test_impossible_levels_are_refused(scale, timestep):
    with pytest.raises(ValueError, match="must lie"):
        StartLevel(scale, timestep)


@pytest.mark.parametrize(
    ("initial", "first", "lowest"), [(1.1, 700, 0), (0.8, 400, 500), (0.8, 1001, 0), (0.8, 700, -1)]
)
def test_impossible_controllers_are_refused(initial, first, lowest):
    with pytest.raises(ValueError, match="must"):
        MotionNoiseController(initial, first_timestep=first, lowest_timestep=lowest)
