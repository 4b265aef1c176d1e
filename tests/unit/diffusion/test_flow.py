"""The straight path: its ends, its inverses, its precision."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats

from streamgen.diffusion.flow import (
    add_noise,
    clean_to_velocity,
    euler_step,
    mix_input,
    velocity_to_clean,
)
from streamgen.diffusion.noise import SeededNoise

SHAPE_BFCHW = (3, 2, 4, 5, 6)
CLEAN_BFCHW = SeededNoise().noise(0, 0, 0, SHAPE_BFCHW)
NOISE_BFCHW = SeededNoise().noise(0, 0, 1, SHAPE_BFCHW)


def test_the_path_leads_from_clean_latents_to_noise():
    noisy = add_noise(CLEAN_BFCHW, NOISE_BFCHW, torch.tensor([0.0, 1.0, 0.5]))
    assert torch.equal(noisy[0], CLEAN_BFCHW[0])
    assert torch.equal(noisy[1], NOISE_BFCHW[1])
    torch.testing.assert_close(noisy[2], (CLEAN_BFCHW[2] + NOISE_BFCHW[2]) / 2)


@given(sigma=floats(0.005, 1))
def test_velocity_and_clean_latents_determine_each_other(sigma):
    """True velocity noise - x_0 leads back; tolerance: float32 rounding divided by sigma."""
    sigma_B = torch.full((3,), sigma)
    noisy = add_noise(CLEAN_BFCHW, NOISE_BFCHW, sigma_B)
    velocity = NOISE_BFCHW - CLEAN_BFCHW
    torch.testing.assert_close(
        velocity_to_clean(noisy, velocity, sigma_B), CLEAN_BFCHW, rtol=0, atol=2e-6
    )
    torch.testing.assert_close(
        clean_to_velocity(noisy, CLEAN_BFCHW, sigma_B), velocity, rtol=0, atol=2e-6 / sigma
    )


def test_an_euler_step_moves_every_row_to_its_own_level():
    sigma_B, next_sigma_B = torch.tensor([1.0, 0.9, 0.5]), torch.tensor([0.9, 0.5, 0.0])
    noisy = add_noise(CLEAN_BFCHW, NOISE_BFCHW, sigma_B)
    stepped = euler_step(
        noisy, NOISE_BFCHW - CLEAN_BFCHW, sigma_B=sigma_B, next_sigma_B=next_sigma_B
    )
    expected = add_noise(CLEAN_BFCHW, NOISE_BFCHW, next_sigma_B)
    torch.testing.assert_close(stepped, expected, rtol=0, atol=2e-6)


def test_a_row_does_not_depend_on_its_neighbours():
    sigma_B = torch.tensor([0.2, 0.7, 0.9])
    together = add_noise(CLEAN_BFCHW, NOISE_BFCHW, sigma_B)
    alone = add_noise(CLEAN_BFCHW[1:2], NOISE_BFCHW[1:2], sigma_B[1:2])
    assert torch.equal(together[1:2], alone)


def test_half_precision_latents_are_computed_in_float32_and_keep_their_type():
    clean, noise = CLEAN_BFCHW.bfloat16(), NOISE_BFCHW.bfloat16()
    sigma_B = torch.tensor([0.1, 0.5, 0.9])
    exact = add_noise(clean.float(), noise.float(), sigma_B)
    noisy = add_noise(clean, noise, sigma_B)
    assert noisy.dtype == torch.bfloat16
    assert torch.equal(noisy, exact.bfloat16())
    assert velocity_to_clean(noisy, noise, sigma_B).dtype == torch.bfloat16


@pytest.mark.parametrize("scale", [0.0, 0.25, 0.7, 1.0])
def test_input_mixing_is_linear_in_the_scale(scale):
    mixed = mix_input(CLEAN_BFCHW[0], NOISE_BFCHW[0], scale)
    assert torch.equal(mixed, NOISE_BFCHW[0] * scale + CLEAN_BFCHW[0] * (1 - scale))


def test_sigmas_that_are_not_one_a_row_are_refused():
    for function in (add_noise, velocity_to_clean, clean_to_velocity):
        for sigma in (torch.tensor(0.5), torch.ones(2), torch.ones(3, 2)):
            with pytest.raises(ValueError, match="one a row"):
                function(CLEAN_BFCHW, NOISE_BFCHW, sigma)


def test_impossible_mixtures_are_refused():
    with pytest.raises(ValueError, match="noise scale"):
        mix_input(CLEAN_BFCHW, NOISE_BFCHW, 1.1)
    with pytest.raises(ValueError, match="differ"):
        mix_input(CLEAN_BFCHW, NOISE_BFCHW[0], 0.5)
