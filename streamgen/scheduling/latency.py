"""How long a batch will take, learned from the batches that ran. Host floats only."""

from __future__ import annotations

from dataclasses import dataclass

FORGETTING = 0.98  # weight of a measurement one batch later; about 50 batches are remembered
PRIOR_WEIGHT = 1e-3  # keeps the fit defined while all batches had the same number of rows
OUTLIER_FACTOR = 5.0  # a batch so much slower than predicted was not the model's time


@dataclass(frozen=True, slots=True)
class LatencyFit:
    """seconds = fixed_s + per_row_s * rows."""

    fixed_s: float
    per_row_s: float


class LatencyModel:
    """An affine model of seconds over rows: recursive least squares with forgetting.

    Source: Ljung, System Identification, 2nd ed. 1999, sec. 11.2 (exponentially weighted least
    squares), here in its two-parameter normal-equation form.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._rows = 0.0
        self._rows_squared = 0.0
        self._seconds = 0.0
        self._rows_seconds = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Take in one measured batch; a wild outlier is limited, not believed."""
        if rows < 1 or seconds < 0:
            raise ValueError(f"a batch of {rows} rows in {seconds} s cannot be")
        expected_s = self.predict(rows)
        if self._weight > 1 and expected_s > 0:  # where all took no time, nothing is an outlier
            seconds = min(seconds, OUTLIER_FACTOR * expected_s)
        self._weight = FORGETTING * self._weight + 1
        self._rows = FORGETTING * self._rows + rows
        self._rows_squared = FORGETTING * self._rows_squared + rows * rows
        self._seconds = FORGETTING * self._seconds + seconds
        self._rows_seconds = FORGETTING * self._rows_seconds + rows * seconds

    def fit(self) -> LatencyFit:
        """The current model; zero before the first batch. Neither part is ever negative."""
        if self._weight == 0:
            return LatencyFit(0.0, 0.0)
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows_squared / self._weight - mean_rows**2
        covariance = self._rows_seconds / self._weight - mean_rows * mean_seconds
        prior_slope = mean_seconds / mean_rows
        slope = (covariance + PRIOR_WEIGHT * prior_slope) / (variance + PRIOR_WEIGHT)
        slope = min(max(slope, 0.0), prior_slope)
        return LatencyFit(fixed_s=max(mean_seconds - slope * mean_rows, 0.0), per_row_s=slope)

    def predict(self, rows: int) -> float:
        """Expected seconds of a batch of `rows` rows."""
        fit = self.fit()
        return fit.fixed_s + fit.per_row_s * rows
