"""Noise levels and steps against numbers recorded from public scheduler code (case F_scheduler)."""

import pytest
import torch

from streamgen.diffusion.flow import add_noise, clean_to_velocity, euler_step, velocity_to_clean
from streamgen.diffusion.schedule import Ladder, NoiseSchedule

SHIFTS = (1, 3, 5, 8)
STEP_LISTS = {
    "selfforcing": (1000, 750, 500, 250),
    "rolling": (1000, 800, 600, 400, 200),
    "causvid_t2v": (1000, 750, 500, 250, 0),
    "sdv2_v2v": (700, 500, 400, 200, 0),
}
ONE_ULP = 1.5e-7  # relative: vectorised linspace may round the last bit otherwise on another CPU


@pytest.fixture(scope="module")
def tensors(golden_case):
    return golden_case("F_scheduler")[0]


@pytest.fixture(scope="module")
def values(golden_case):
    return golden_case("F_scheduler")[1]["values"]


@pytest.mark.parametrize("shift", SHIFTS)
def test_tables_equal_the_reference(tensors, shift):
    schedule = NoiseSchedule(shift=shift)
    for name in ("sigmas", "timesteps"):
        table = torch.tensor(getattr(schedule, name))
        torch.testing.assert_close(table, tensors[f"{name}_shift{shift}"], rtol=ONE_ULP, atol=0)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", STEP_LISTS)
def test_warped_ladders_equal_the_reference(values, shift, name):
    schedule = NoiseSchedule(shift=shift)
    expected = values[f"shift_{shift}"]["warped"][name]
    assert schedule.warp(STEP_LISTS[name]) == pytest.approx(expected, rel=ONE_ULP)
    assert Ladder.warped(schedule, STEP_LISTS[name]).timesteps == schedule.warp(STEP_LISTS[name])


@pytest.mark.parametrize("shift", SHIFTS)
def test_lookup_finds_the_entry_that_the_reference_finds(values, shift):
    schedule = NoiseSchedule(shift=shift)
    for timestep, entry in values[f"shift_{shift}"]["nearest"].items():
        index = schedule.nearest_index(float(timestep))
        assert index == entry["index"]
        assert schedule.sigma_at(float(timestep)) == pytest.approx(entry["sigma"], rel=ONE_ULP)
        assert schedule.timesteps[index] == pytest.approx(entry["timestep"], rel=ONE_ULP)


def test_noise_and_its_removal_equal_the_reference(tensors):
    schedule = NoiseSchedule(shift=5)
    sigma_B = torch.tensor([schedule.sigma_at(timestep) for timestep in tensors["t"].tolist()])
    clean, noise, flow = (tensors[name][:, None] for name in ("x0", "eps", "flow"))

    noisy = add_noise(clean, noise, sigma_B)

    torch.testing.assert_close(noisy[:, 0], tensors["add_noise"], rtol=0, atol=1e-6)
    estimate = velocity_to_clean(noisy, flow, sigma_B)[:, 0]
    torch.testing.assert_close(estimate, tensors["x0_from_flow"], rtol=0, atol=1e-6)
    velocity = clean_to_velocity(noisy, estimate[:, None], sigma_B)[:, 0]
    torch.testing.assert_close(velocity, tensors["flow_from_x0"], rtol=0, atol=1e-6)


def test_euler_step_equals_the_reference(tensors):
    """Every row goes to its own next level; the last one of these is at its last step."""
    schedule = NoiseSchedule(shift=5, num_levels=50)
    indices = [schedule.nearest_index(timestep) for timestep in tensors["t50"].tolist()]
    padded = torch.tensor((*schedule.sigmas, 0.0))
    stepped = euler_step(
        tensors["add_noise"][:, None],
        tensors["flow"][:, None],
        sigma_B=padded[indices],
        next_sigma_B=padded[[index + 1 for index in indices]],
    )
    assert indices[-1] == schedule.num_levels - 1
    torch.testing.assert_close(stepped[:, 0], tensors["euler_step_50"], rtol=0, atol=1e-6)
