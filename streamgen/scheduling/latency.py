"""How long work will take, learned from the work that ran. Host floats only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

FORGETTING = 0.98  # weight of a measurement one batch later; about 50 batches are remembered
PRIOR_WEIGHT = 1e-3  # keeps the fit defined while all batches had the same size
OUTLIER_FACTOR = 5.0  # a batch so much slower than predicted was not the model's time
DRIFT_SAMPLES = 5  # newest measurements whose median says that the hardware has changed its speed
DRIFT_BAND = 0.08  # share by which that median may differ from the fit before it is believed
ERROR_WEIGHT = 0.05  # of the newest relative error in its moving average


@dataclass(frozen=True, slots=True)
class LatencyFit:
    """seconds = fixed_s * calls + per_unit_s * units."""

    fixed_s: float
    per_unit_s: float


class WorkModel:
    """An affine model of one kind of work: seconds over units, so much a call.

    Recursive least squares with forgetting (Ljung, System Identification, 2nd ed. 1999, sec. 11.2,
    in its two-parameter normal-equation form) finds what a call and a unit cost. That takes tens of
    batches to follow a change, so the median of the newest measurements against the fit scales the
    prediction at once where it lies outside DRIFT_BAND; one or two outliers do not move a median.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._units = 0.0
        self._units_squared = 0.0
        self._seconds = 0.0
        self._units_seconds = 0.0
        self._newest: deque[tuple[float, int, float]] = deque(maxlen=DRIFT_SAMPLES)
        self._fit = LatencyFit(0.0, 0.0)
        self._drift = 1.0
        self._error = 0.0
        self._num_observed = 0

    @property
    def num_observed(self) -> int:
        return self._num_observed

    @property
    def error(self) -> float:
        """Moving average of |predicted - measured| / measured."""
        return self._error

    @property
    def drift(self) -> float:
        """How much slower than the fit the newest measurements were; 1 while they agree."""
        return self._drift

    def observe(self, units: float, seconds: float, *, calls: int = 1) -> float:
        """Take in one measurement; a wild outlier is limited, not believed.

        Returns the relative error of the prediction that was made without it, 0 for the first.
        """
        if units <= 0 or seconds < 0 or calls < 1:
            raise ValueError(f"{units} units in {calls} calls and {seconds} s cannot be")
        expected_s = self.predict(units, calls=calls)
        error = abs(expected_s - seconds) / seconds if self._num_observed and seconds > 0 else 0.0
        if self._num_observed:
            self._error += ERROR_WEIGHT * (min(error, 1.0) - self._error)
        self._num_observed += 1
        self._newest.append((units, calls, seconds))
        if self._weight > 1 and expected_s > 0:  # where all took no time, nothing is an outlier
            seconds = min(seconds, OUTLIER_FACTOR * expected_s)
        units_a_call = units / calls
        self._weight = FORGETTING * self._weight + calls
        self._units = FORGETTING * self._units + units
        self._units_squared = FORGETTING * self._units_squared + calls * units_a_call**2
        self._seconds = FORGETTING * self._seconds + seconds
        self._units_seconds = FORGETTING * self._units_seconds + units_a_call * seconds
        self._fit = self._solve()
        self._drift = self._measure_drift()
        return error

    def fit(self) -> LatencyFit:
        """What least squares say, without drift; zero at first. No part is ever negative."""
        return self._fit

    def predict(self, units: float, *, calls: int = 1) -> float:
        """Expected seconds of so many units in so many calls."""
        return self._drift * (self._fit.fixed_s * calls + self._fit.per_unit_s * units)

    def _solve(self) -> LatencyFit:
        mean_units, mean_seconds = self._units / self._weight, self._seconds / self._weight
        variance = max(0.0, self._units_squared / self._weight - mean_units**2)
        covariance = self._units_seconds / self._weight - mean_units * mean_seconds
        prior_slope = mean_seconds / mean_units
        slope = (covariance + PRIOR_WEIGHT * prior_slope) / (variance + PRIOR_WEIGHT)
        slope = min(max(slope, 0.0), prior_slope)
        return LatencyFit(fixed_s=max(mean_seconds - slope * mean_units, 0.0), per_unit_s=slope)

    def _measure_drift(self) -> float:
        if len(self._newest) < DRIFT_SAMPLES:
            return 1.0
        fixed_s, per_unit_s = self._fit.fixed_s, self._fit.per_unit_s
        ratios: list[float] = []
        for units, calls, seconds in self._newest:
            expected_s = fixed_s * calls + per_unit_s * units
            if expected_s > 0:
                ratios.append(seconds / expected_s)
        ratios.sort()
        drift = ratios[len(ratios) // 2] if ratios else 1.0
        return drift if drift > 0 and abs(drift - 1) > DRIFT_BAND else 1.0


class LatencyModel:
    """Seconds of everything that a tick does, each kind learned by itself.

    Units: latent frames of all rows of a forward (`denoise`), pictures (`encode`, `decode`). A
    chunk's every step is a row of its own, so steps are counted where they happen.
    """

    def __init__(self) -> None:
        self.encode = WorkModel()
        self.denoise = WorkModel()
        self.decode = WorkModel()

    @property
    def is_calibrated(self) -> bool:
        """Whether anything is known at all."""
        return self.denoise.num_observed > 0

    def costs(self) -> Costs:
        """All parameters at this moment, drift included."""
        return Costs(_scaled(self.denoise), _scaled(self.encode), _scaled(self.decode))


@dataclass(frozen=True, slots=True)
class Costs:
    """What a tick's parts cost; the same fits as a LatencyModel, as a value."""

    denoise: LatencyFit
    encode: LatencyFit = LatencyFit(0.0, 0.0)
    decode: LatencyFit = LatencyFit(0.0, 0.0)
    tiny_codec: float = 1.0
    """Share of the codec's seconds that the tiny one takes."""

    def times(self, factor: float) -> Costs:
        """Everything slower by a factor."""
        fits = (_times(fit, factor) for fit in (self.denoise, self.encode, self.decode))
        return Costs(*fits, tiny_codec=self.tiny_codec)


class _Deaf(WorkModel):
    """Takes in nothing."""

    def observe(self, units: float, seconds: float, *, calls: int = 1) -> float:
        return 0.0


class KnownLatency(LatencyModel):
    """A model that is told what work costs and learns nothing: for rehearsals."""

    def __init__(self, costs: Costs) -> None:
        super().__init__()
        self.encode = self.denoise = self.decode = _Deaf()
        self._costs = costs

    def costs(self) -> Costs:
        return self._costs


def _scaled(model: WorkModel) -> LatencyFit:
    return _times(model.fit(), model.drift)


def _times(fit: LatencyFit, factor: float) -> LatencyFit:
    return LatencyFit(fit.fixed_s * factor, fit.per_unit_s * factor)
