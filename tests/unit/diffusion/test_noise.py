"""Draws are a function of (seed, chunk, step): nothing else decides them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from streamgen.diffusion.noise import (
    CONDITION_STEP,
    START_STEP,
    NoiseSource,
    RecordedNoise,
    SeededNoise,
)

SHAPE = (2, 4, 3, 3)
DRAW_42_3_1 = (-0.5281523, -0.6764074, 0.350584, -0.553947)
TRIPLES = tuples(integers(-(2**63), 2**63 - 1), integers(0, 10**9), integers(-1, 8))


def draw(source: NoiseSource, triple: tuple[int, int, int]) -> torch.Tensor:
    seed, chunk, step = triple
    return source.noise(seed, chunk, step, SHAPE)


@given(triples=lists(TRIPLES, min_size=1, max_size=6))
def test_the_order_of_calls_does_not_matter(triples):
    forwards = [draw(SeededNoise(), triple) for triple in triples]
    one_source = SeededNoise()
    backwards = [draw(one_source, triple) for triple in reversed(triples)]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))


@given(first=TRIPLES, second=TRIPLES)
def test_other_triples_give_other_draws(first, second):
    draws = [draw(SeededNoise(), triple) for triple in (first, second)]
    assert torch.equal(draws[0], draws[1]) == (first == second)


def test_seeds_that_agree_in_their_lower_half_give_other_draws():
    low, high = (SeededNoise().noise(seed, 0, START_STEP, SHAPE) for seed in (7, 7 + 2**32))
    assert not torch.equal(low, high)


def test_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(3)
    np.random.seed(3)
    torch_state = torch.get_rng_state()
    expected = np.random.random()
    np.random.seed(3)
    SeededNoise().noise(1, 2, CONDITION_STEP, SHAPE)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.random() == expected


def test_draws_are_standard_normal():
    """200,000 numbers: five standard errors are 0.011 for the mean and 0.016 for the variance."""
    numbers = SeededNoise().noise(5, 1, 2, (200, 1000))
    assert numbers.dtype == torch.float32
    assert abs(float(numbers.mean())) < 0.011
    assert abs(float(numbers.var()) - 1) < 0.016
    kurtosis = float((numbers.double() ** 4).mean())
    assert kurtosis == pytest.approx(3, abs=0.11)


def test_neighbouring_chunks_and_steps_are_uncorrelated():
    """100,000 pairs: five standard errors of a correlation are 0.016."""
    shape = (100_000,)
    base = SeededNoise().noise(0, 10, 1, shape)
    for seed, chunk, step in ((1, 10, 1), (0, 11, 1), (0, 10, 2), (0, 1, 10)):
        other = SeededNoise().noise(seed, chunk, step, shape)
        assert abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) < 0.016


def test_draws_stay_what_they_were():
    """A recorded session must look the same after an upgrade; a change here is a change there."""
    numbers = SeededNoise().noise(42, 3, 1, (4,))
    torch.testing.assert_close(numbers, torch.tensor(DRAW_42_3_1), rtol=1e-6, atol=0)


def test_a_number_beyond_64_bits_is_refused():
    with pytest.raises(ValueError, match="64-bit"):
        SeededNoise().noise(2**63, 0, 0, SHAPE)


def test_recorded_noise_is_replayed_and_not_handed_over():
    recorded = torch.ones(SHAPE)
    source = RecordedNoise({(4, 1): recorded})
    replayed = source.noise(99, 4, 1, SHAPE)
    assert torch.equal(replayed, recorded)
    replayed.zero_()
    assert torch.equal(source.noise(0, 4, 1, SHAPE), torch.ones(SHAPE))


def test_noise_that_was_not_recorded_so_is_refused():
    source = RecordedNoise({(4, 1): torch.ones(SHAPE)})
    with pytest.raises(ValueError, match="no noise was recorded for chunk 4, step 2"):
        source.noise(0, 4, 2, SHAPE)
    with pytest.raises(ValueError, match="recorded as"):
        source.noise(0, 4, 1, (1, 2))
