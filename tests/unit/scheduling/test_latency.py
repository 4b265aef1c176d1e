from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, tuples

from streamgen.scheduling.latency import OUTLIER_FACTOR, LatencyFit, WorkModel

ROWS = (1, 2, 4, 8)


def noisy_batches(fixed_s: float, per_unit_s: float, count: int) -> list[tuple[int, float]]:
    """Batches of an affine cost with two per cent of Gaussian noise, always the same ones."""
    draw = random.Random(7)
    return [
        (rows, (fixed_s + per_unit_s * rows) * draw.gauss(1, 0.02))
        for rows in (draw.choice(ROWS) for _ in range(count))
    ]


def learned(batches: list[tuple[int, float]]) -> WorkModel:
    model = WorkModel()
    for rows, seconds in batches:
        model.observe(rows, seconds)
    return model


@pytest.mark.parametrize(("fixed_s", "per_unit_s"), [(0.02, 0.005), (0.001, 0.03), (0.05, 0.0)])
def test_a_known_affine_cost_is_recovered_from_noisy_batches(
    fixed_s: float, per_unit_s: float
) -> None:
    """Two per cent of noise over about 50 remembered batches: predictions hold to two per cent."""
    model = learned(noisy_batches(fixed_s, per_unit_s, 400))
    for rows in (*ROWS, 16):
        assert model.predict(rows) == pytest.approx(fixed_s + per_unit_s * rows, rel=0.02)


def test_a_cost_that_changes_is_followed() -> None:
    """What was measured 300 batches ago counts for nothing."""
    model = learned(noisy_batches(0.02, 0.005, 200))
    for rows, seconds in noisy_batches(0.04, 0.002, 300):
        model.observe(rows, seconds)
    assert model.fit().fixed_s == pytest.approx(0.04, rel=0.05)


def test_batches_of_one_size_are_predicted_exactly() -> None:
    """Where nothing tells fixed cost from cost a row, the mean is still right."""
    model = learned([(4, 0.05)] * 30)
    assert model.predict(4) == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize("outlier_s", [1.0, 1e3, 1e9])
def test_an_outlier_moves_the_model_no_more_than_its_limit_does(outlier_s: float) -> None:
    """A batch that hung is limited to OUTLIER_FACTOR times its prediction, however long it hung."""
    wild, limited = learned([(4, 0.05)] * 50), learned([(4, 0.05)] * 50)
    wild.observe(4, outlier_s)
    limited.observe(4, OUTLIER_FACTOR * limited.predict(4))
    assert wild.fit() == limited.fit()
    assert wild.predict(4) < 1.15 * 0.05


def test_a_first_measurement_of_zero_does_not_make_everything_an_outlier() -> None:
    """A model that has only seen batches of no time believes the next one that takes some."""
    model = learned([(1, 0.0)] * 3 + [(1, 0.1)] * 400)
    assert model.predict(1) == pytest.approx(0.1, rel=0.01)


def test_nothing_is_known_before_the_first_batch() -> None:
    model = WorkModel()
    assert model.fit() == LatencyFit(0.0, 0.0)
    assert model.predict(3) == 0.0


@given(
    lists(tuples(integers(1, 256), floats(0, 1e6, allow_subnormal=False)), min_size=1, max_size=40)
)
def test_no_part_of_the_model_is_ever_negative(batches: list[tuple[int, float]]) -> None:
    """So a larger batch is never predicted to be faster, nor any batch to take negative time."""
    model = WorkModel()
    for rows, seconds in batches:
        model.observe(rows, seconds)
        fit = model.fit()
        assert fit.fixed_s >= 0
        assert fit.per_unit_s >= 0
        assert 0 <= model.predict(1) <= model.predict(2) <= model.predict(300)


@pytest.mark.parametrize(("rows", "seconds"), [(0, 1.0), (-1, 1.0), (1, -0.1)])
def test_an_impossible_measurement_is_refused(rows: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        WorkModel().observe(rows, seconds)
