"""Counters, gauges, percentiles and rates: small, of bounded memory, safe between threads.

They know neither their names nor who reads them (`export` does); time comes from a Clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from threading import Lock

from streamgen.clock import Clock

RELATIVE_ERROR = 0.01  # of every percentile of a Summary
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_SMALLEST, _LARGEST = 1e-9, 1e9  # what a Summary tells apart: 2,073 buckets at most


class Counter:
    """A number that only grows."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._value = 0

    def add(self, amount: int = 1) -> None:
        """Raises ValueError if `amount` is negative."""
        if amount < 0:
            raise ValueError(f"a counter only grows, not by {amount}")
        with self._lock:
            self._value += amount

    @property
    def value(self) -> int:
        return self._value


class Gauge:
    """A number that is what it was last set to."""

    def __init__(self) -> None:
        self._value = 0.0

    def set(self, value: float) -> None:
        self._value = float(value)

    @property
    def value(self) -> float:
        return self._value


@dataclass(frozen=True, slots=True)
class Percentiles:
    """What a Summary has seen; all but `count` and `total` are None while there is nothing."""

    count: int
    total: float
    lowest: float | None
    highest: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class Summary:
    """Percentiles of all values so far, each within 1 % of the exact one.

    Values fall into buckets whose bounds grow by a constant factor (DDSketch: Masson et al. 2019,
    arXiv:1908.10693, sec. 2), so memory is bounded however long a stream lasts. Values from 0 to
    1e-9 count as 0 and values above 1e9 share one bucket.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._buckets: dict[int, int] = {}
        self._num_zeros = 0
        self._count = 0
        self._total = 0.0
        self._lowest = math.inf
        self._highest = -math.inf

    def add(self, value: float) -> None:
        """Raises ValueError if `value` is negative or not finite."""
        if not 0 <= value < math.inf:
            raise ValueError(f"a summary takes finite values from 0 up, not {value}")
        with self._lock:
            self._count += 1
            self._total += value
            self._lowest = min(self._lowest, value)
            self._highest = max(self._highest, value)
            if value <= _SMALLEST:
                self._num_zeros += 1
            else:
                bucket = math.ceil(math.log(min(value, _LARGEST)) / _LOG_GAMMA)
                self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentiles(self) -> Percentiles:
        """All of them at one moment."""
        with self._lock:
            if not self._count:
                return Percentiles(0, 0.0, None, None, None, None, None)
            p50, p95, p99 = (self._quantile(share) for share in (0.50, 0.95, 0.99))
            return Percentiles(self._count, self._total, self._lowest, self._highest, p50, p95, p99)

    def _quantile(self, share: float) -> float:
        """About the value at place floor(share * (count - 1)) of all values in rising order."""
        rank = math.floor(share * (self._count - 1))
        seen = self._num_zeros
        estimate = 0.0
        for bucket in sorted(self._buckets):
            if seen > rank:
                break
            seen += self._buckets[bucket]
            estimate = 2 * math.exp(bucket * _LOG_GAMMA) / (_GAMMA + 1)
        return min(max(estimate, self._lowest), self._highest)


class RateMeter:
    """Events a second over the last `window_s`, or since the start while that is less.

    Time is cut into `num_buckets` parts of the window, which is how finely old events leave it.
    """

    def __init__(self, clock: Clock, *, window_s: float = 10.0, num_buckets: int = 50) -> None:
        if not window_s > 0 or num_buckets < 1:
            raise ValueError(f"no rate over {window_s} s in {num_buckets} buckets")
        self._clock = clock
        self._bucket_s = window_s / num_buckets
        self._num_buckets = num_buckets
        self._start_s = clock.now()
        self._lock = Lock()
        self._buckets: deque[tuple[int, int]] = deque()  # (bucket number, events), rising

    def add(self, events: int = 1) -> None:
        with self._lock:
            bucket = self._expire(self._clock.now())
            if self._buckets and self._buckets[-1][0] == bucket:
                events += self._buckets.pop()[1]
            self._buckets.append((bucket, events))

    def per_second(self) -> float:
        with self._lock:
            now_s = self._clock.now()
            oldest_s = (self._expire(now_s) - self._num_buckets + 1) * self._bucket_s
            covered_s = now_s - max(self._start_s, oldest_s)
            events = sum(count for _, count in self._buckets)
        return events / covered_s if covered_s > 0 else 0.0

    def _expire(self, now_s: float) -> int:
        """Forget what left the window; the number of the bucket of `now_s`."""
        current = math.floor(now_s / self._bucket_s)
        while self._buckets and self._buckets[0][0] <= current - self._num_buckets:
            self._buckets.popleft()
        return current
