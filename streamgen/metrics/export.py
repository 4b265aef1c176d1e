"""Named metrics of one process, as JSON and in Prometheus' text format.

`Metrics` is an object that is passed to those who count; there is no global one. Names follow
Prometheus: snake case, base units (seconds, bytes), counters end in `_total`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

from streamgen.clock import Clock
from streamgen.metrics.json_value import Json
from streamgen.metrics.stats import Counter, Gauge, Percentiles, RateMeter, Summary

Metric = Counter | Gauge | RateMeter | Summary
MetricT = TypeVar("MetricT", Counter, Gauge, RateMeter, Summary)
Labels = tuple[tuple[str, str], ...]

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NO_LABELS: Mapping[str, str] = {}
_PROMETHEUS_TYPES = {Counter: "counter", Gauge: "gauge", RateMeter: "gauge", Summary: "summary"}


@dataclass(frozen=True, slots=True)
class _Family:
    """All metrics of one name: one for each set of labels."""

    kind: type[Metric]
    about: str
    series: dict[Labels, Metric] = field(default_factory=dict[Labels, Metric])


class Metrics:
    """Makes metrics by name, and shows all that it made.

    Asking again for the same name and labels gives the same object. Each method raises ValueError
    for a name or label that Prometheus does not allow, and for a name in use for another kind.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._families: dict[str, _Family] = {}

    def counter(self, name: str, about: str, labels: Mapping[str, str] = _NO_LABELS) -> Counter:
        return self._metric(name, about, labels, Counter, Counter)

    def gauge(self, name: str, about: str, labels: Mapping[str, str] = _NO_LABELS) -> Gauge:
        return self._metric(name, about, labels, Gauge, Gauge)

    def summary(self, name: str, about: str, labels: Mapping[str, str] = _NO_LABELS) -> Summary:
        return self._metric(name, about, labels, Summary, Summary)

    def rate(self, name: str, about: str, labels: Mapping[str, str] = _NO_LABELS) -> RateMeter:
        """Events a second over the last ten seconds."""
        return self._metric(name, about, labels, RateMeter, lambda: RateMeter(self._clock))

    def remove(self, name: str, labels: Mapping[str, str] = _NO_LABELS) -> None:
        """Forget one metric, such as that of a closed session; KeyError if there is none."""
        with self._lock:
            family = self._families[name]
            del family.series[_sorted(labels)]
            if not family.series:
                del self._families[name]

    def to_json(self) -> dict[str, Json]:
        """{name: {"about": ..., "series": [{"labels": {...}, "value": ...}]}}; no value is None."""
        shown: dict[str, Json] = {}
        for name, family in self._snapshot():
            series: list[Json] = [
                {"labels": dict(labels), "value": _json_value(metric)}
                for labels, metric in family.series.items()
            ]
            shown[name] = {"about": family.about, "series": series}
        return shown

    def to_prometheus(self) -> str:
        """Text format 0.0.4 (prometheus.io, "Exposition formats")."""
        return prometheus_text([((), self)])

    def families(self) -> list[tuple[str, str, str, list[tuple[Labels, Metric]]]]:
        """(name, Prometheus type, what it is, its metrics by labels) of all, by name."""
        return [
            (name, _PROMETHEUS_TYPES[family.kind], family.about, list(family.series.items()))
            for name, family in self._snapshot()
        ]

    def _metric(
        self,
        name: str,
        about: str,
        labels: Mapping[str, str],
        kind: type[MetricT],
        make: Callable[[], MetricT],
    ) -> MetricT:
        _check_names(name, labels)
        with self._lock:
            family = self._families.setdefault(name, _Family(kind, about))
            metric = family.series.get(_sorted(labels))
            if metric is None and family.kind is kind:
                metric = family.series[_sorted(labels)] = make()
            if not isinstance(metric, kind):
                raise ValueError(f"{name} is a {family.kind.__name__}, not a {kind.__name__}")
            return metric

    def _snapshot(self) -> list[tuple[str, _Family]]:
        """By name; the copies do not change while they are shown."""
        with self._lock:
            return [
                (name, _Family(family.kind, family.about, dict(family.series)))
                for name, family in sorted(self._families.items())
            ]


def prometheus_text(parts: Sequence[tuple[Labels, Metrics]]) -> str:
    """Several Metrics as one text, each with labels of its own: every name is described once."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for own, metrics in parts:
        for name, kind, about, series in metrics.families():
            heads[name] = [f"# HELP {name} {_escape(about)}", f"# TYPE {name} {kind}"]
            for labels, metric in series:
                lines = _sample_lines(name, (*own, *labels), metric)
                samples.setdefault(name, []).extend(lines)
    lines = [line for name in sorted(heads) for line in (*heads[name], *samples[name])]
    return "".join(f"{line}\n" for line in lines)


def _check_names(name: str, labels: Mapping[str, str]) -> None:
    for word in (name, *labels):
        if not _NAME.fullmatch(word):
            raise ValueError(f"{word!r} is no name for a metric or label; use snake_case")
    if "quantile" in labels or any(label.startswith("__") for label in labels):
        raise ValueError(f"labels of {name} take a name that Prometheus reserves: {list(labels)}")


def _sorted(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _json_value(metric: Metric) -> Json:
    match metric:
        case Counter():
            return metric.value
        case Gauge():
            return metric.value if math.isfinite(metric.value) else None
        case RateMeter():
            return metric.per_second()
        case Summary():
            return _json_percentiles(metric.percentiles())


def _json_percentiles(seen: Percentiles) -> Json:
    return {
        "count": seen.count,
        "total": seen.total,
        "lowest": seen.lowest,
        "highest": seen.highest,
        "p50": seen.p50,
        "p95": seen.p95,
        "p99": seen.p99,
    }


def _sample_lines(name: str, labels: Labels, metric: Metric) -> list[str]:
    match metric:
        case Counter() | Gauge():
            return [_sample_line(name, labels, metric.value)]
        case RateMeter():
            return [_sample_line(name, labels, metric.per_second())]
        case Summary():
            seen = metric.percentiles()
            shares = (("0.5", seen.p50), ("0.95", seen.p95), ("0.99", seen.p99))
            return [
                *(_sample_line(name, (*labels, ("quantile", q)), v) for q, v in shares),
                _sample_line(f"{name}_sum", labels, seen.total),
                _sample_line(f"{name}_count", labels, seen.count),
            ]


def _sample_line(name: str, labels: Labels, value: float | None) -> str:
    quoted = ",".join(f'{key}="{_escape_label(text)}"' for key, text in labels)
    return f"{name}{{{quoted}}} {_number(value)}" if quoted else f"{name} {_number(value)}"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape(text).replace('"', '\\"')
