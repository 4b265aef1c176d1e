"""Residual guidance: identities of its algebra, and distributions whose fields are known."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers, sampled_from
from torch import Tensor

from streamgen.diffusion.flow import add_noise, clean_to_velocity, velocity_to_clean
from streamgen.diffusion.guidance import (
    Guidance,
    GuidanceMode,
    check_mode_fits_input,
    negative_velocity,
)
from streamgen.diffusion.noise import SeededNoise
from streamgen.errors import ConfigError

SHAPE_BFCHW = (2, 1, 3, 4, 4)
NOISY, COND, NEGATIVE, ENDPOINT = (
    SeededNoise().noise(0, 0, step, SHAPE_BFCHW) for step in range(4)
)
ASSUMING = (GuidanceMode.SELF, GuidanceMode.INITIALIZE)
GUIDING = (*ASSUMING, GuidanceMode.FULL)

sigmas = floats(0.05, 1)
scales = floats(0, 6)


def rows(sigma: float) -> Tensor:
    return torch.full((SHAPE_BFCHW[0],), sigma)


def gaussian_velocity(noisy: Tensor, sigma: float, *, mean: float, variance: float) -> Tensor:
    """The exact field of x_0 ~ N(mean, variance): (x - E[x_0 | x]) / sigma.

    x = (1 - sigma) x_0 + sigma noise is Gaussian, so E[x_0 | x] = mean + k (x - (1 - sigma) mean)
    with k = (1 - sigma) variance / ((1 - sigma)^2 variance + sigma^2).
    """
    rest = 1 - sigma
    gain = rest * variance / (rest**2 * variance + sigma**2)
    return (noisy - (mean + gain * (noisy - rest * mean))) / sigma


@pytest.mark.parametrize("mode", GuidanceMode)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_one_is_the_conditional_velocity_bit_for_bit(mode, dtype):
    cond = COND.to(dtype)
    assert torch.equal(Guidance(mode).combine(cond, NEGATIVE.to(dtype)), cond)


@given(scale=scales)
def test_full_is_plain_classifier_free_guidance(scale):
    guided = Guidance(GuidanceMode.FULL, scale).combine(COND, NEGATIVE)
    torch.testing.assert_close(guided, NEGATIVE + scale * (COND - NEGATIVE), rtol=1e-5, atol=1e-5)


@given(mode=sampled_from(ASSUMING), scale=scales, sigma=sigmas)
def test_guided_velocity_extrapolates_clean_latents_from_the_endpoint(mode, scale, sigma):
    """x_0 = z + g (x_0c - z) at delta 1; float32 rounding of v_n grows as 1 / sigma."""
    guided = Guidance(mode, scale).combine(COND, negative_velocity(NOISY, ENDPOINT, rows(sigma)))
    clean_cond = velocity_to_clean(NOISY, COND, rows(sigma))
    expected = ENDPOINT + scale * (clean_cond - ENDPOINT)
    clean = velocity_to_clean(NOISY, guided, rows(sigma))
    torch.testing.assert_close(clean, expected, rtol=1e-5, atol=2e-5)


@given(scale=scales, delta=floats(0, 1), sigma=sigmas)
def test_delta_slides_the_endpoint_towards_the_noisy_latents(scale, delta, sigma):
    moderated = Guidance(GuidanceMode.SELF, scale, delta).combine(
        COND, negative_velocity(NOISY, ENDPOINT, rows(sigma))
    )
    slid = (1 - delta) * NOISY + delta * ENDPOINT
    expected = Guidance(GuidanceMode.SELF, scale).combine(
        COND, negative_velocity(NOISY, slid, rows(sigma))
    )
    torch.testing.assert_close(moderated, expected, rtol=1e-5, atol=1e-4)


@given(scale=scales, sigma=floats(0.05, 0.95))
def test_guiding_velocities_equals_guiding_noises_as_the_paper_does(scale, sigma):
    """At delta 1; noise = x_sigma + (1 - sigma) v turns the one into the other."""
    rest = 1 - sigma
    virtual_noise = (NOISY - rest * ENDPOINT) / sigma
    cond_noise = NOISY + rest * COND
    guided_noise = virtual_noise + scale * (cond_noise - virtual_noise)
    guided = Guidance(GuidanceMode.SELF, scale).combine(
        COND, negative_velocity(NOISY, ENDPOINT, rows(sigma))
    )
    torch.testing.assert_close(NOISY + rest * guided, guided_noise, rtol=1e-4, atol=1e-3)


@given(sigma=sigmas)
def test_initialize_repeats_the_real_negative_velocity_at_the_step_it_was_made(sigma):
    endpoint = velocity_to_clean(NOISY, NEGATIVE, rows(sigma))
    assumed = negative_velocity(NOISY, endpoint, rows(sigma))
    torch.testing.assert_close(assumed, NEGATIVE, rtol=1e-5, atol=1e-6 / sigma)


@given(scale=scales, sigma=sigmas, shift=floats(-2, 2), variance=floats(0.1, 2))
def test_full_guidance_between_two_gaussians_moves_the_mean(scale, sigma, shift, variance):
    """Conditional N(m, s^2) against unconditional N(0, s^2): the guided field is exactly that of
    N(g m, s^2), since E[x_0 | x] is affine in the mean. Tolerance: float32 over sigma."""
    guided = Guidance(GuidanceMode.FULL, scale).combine(
        gaussian_velocity(NOISY, sigma, mean=shift, variance=variance),
        gaussian_velocity(NOISY, sigma, mean=0.0, variance=variance),
    )
    expected = gaussian_velocity(NOISY, sigma, mean=scale * shift, variance=variance)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-5 / sigma)


@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
def test_residual_modes_equal_full_where_the_assumption_is_true(scale):
    """An unconditional distribution of one point z has v_n = (x - z) / sigma at every level, so one
    pass at the first step, or knowing z, says as much as a pass at every step."""
    first, later = 0.9, 0.4
    at_first = add_noise(ENDPOINT, NOISY, rows(first))
    endpoint = velocity_to_clean(
        at_first, clean_to_velocity(at_first, ENDPOINT, rows(first)), rows(first)
    )
    at_later = add_noise(COND, NOISY, rows(later))
    real = clean_to_velocity(at_later, ENDPOINT, rows(later))

    full = Guidance(GuidanceMode.FULL, scale).combine(COND, real)

    for mode, z in ((GuidanceMode.INITIALIZE, endpoint), (GuidanceMode.SELF, ENDPOINT)):
        assumed = negative_velocity(at_later, z, rows(later))
        torch.testing.assert_close(
            Guidance(mode, scale).combine(COND, assumed), full, rtol=1e-5, atol=1e-5
        )


@given(step=integers(0, 7))
def test_every_mode_asks_for_its_passes_and_no_others(step):
    wanted = {
        GuidanceMode.SELF: (False, True),
        GuidanceMode.INITIALIZE: (step == 0, step > 0),
        GuidanceMode.FULL: (True, False),
    }
    for mode, (negative_pass, endpoint) in wanted.items():
        guidance = Guidance(mode, scale=1.5)
        assert guidance.needs_negative_pass(step) == negative_pass
        assert guidance.needs_endpoint(step) == endpoint
    for mode in GuidanceMode:
        assert not Guidance(mode, scale=1.0).needs_negative_pass(step)
        assert not Guidance(mode, scale=1.0).needs_endpoint(step)


@pytest.mark.parametrize("mode", GUIDING)
def test_half_precision_velocities_keep_their_type(mode):
    cond, negative = COND.bfloat16(), NEGATIVE.bfloat16()
    guided = Guidance(mode, 1.5).combine(cond, negative)
    exact = Guidance(mode, 1.5).combine(cond.float(), negative.float())
    assert guided.dtype == torch.bfloat16
    assert torch.equal(guided, exact.bfloat16())


@pytest.mark.parametrize(
    ("mode", "scale", "delta"),
    [
        (GuidanceMode.NONE, 1.5, 1.0),
        (GuidanceMode.NONE, 1.0, 0.5),
        (GuidanceMode.FULL, 1.5, 0.5),
        (GuidanceMode.SELF, -1.0, 1.0),
        (GuidanceMode.SELF, float("nan"), 1.0),
        (GuidanceMode.SELF, 1.5, -0.5),
    ],
)
def test_settings_that_cannot_take_effect_are_refused(mode, scale, delta):
    with pytest.raises(ConfigError, match="guidance"):
        Guidance(mode, scale, delta)


def test_self_needs_an_input_video():
    with pytest.raises(ConfigError, match="needs an input video"):
        check_mode_fits_input(GuidanceMode.SELF, has_input=False)
    check_mode_fits_input(GuidanceMode.SELF, has_input=True)
    for mode in set(GuidanceMode) - {GuidanceMode.SELF}:
        check_mode_fits_input(mode, has_input=False)
