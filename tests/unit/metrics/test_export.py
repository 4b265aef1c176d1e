"""What is exported can be read back: JSON by `json`, Prometheus text by a reader of its rules."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, floats, sampled_from, text

from streamgen.clock import SimulatedClock
from streamgen.metrics.export import Metrics

SAMPLE = re.compile(
    r'(?P<name>\w+)(?:\{(?P<labels>(?:\w+="(?:[^"\\\n]|\\.)*",?)*)\})? (?P<value>\S+)'
)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
UNESCAPED = {r"\\": "\\", r"\n": "\n", r"\"": '"'}


def read_samples(exposition: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a Prometheus text, labels unescaped; every line must match the grammar."""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for line in exposition.removesuffix("\n").split("\n"):
        if line.startswith("# "):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        labels = tuple(
            (key, re.sub(r"\\.", lambda m: UNESCAPED[m.group()], value))
            for key, value in LABEL.findall(match["labels"] or "")
        )
        samples[match["name"], labels] = float(match["value"])
    return samples


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(SimulatedClock())


def test_all_kinds_are_shown_as_prometheus_wants_them():
    clock = SimulatedClock()
    metrics = Metrics(clock)
    metrics.counter("frames_total", "frames shown", {"sink": "file"}).add(3)
    metrics.gauge("sessions", "open sessions").set(2)
    metrics.summary("latency_seconds", "capture to display").add(0.5)
    rate = metrics.rate("frames_per_second", "frames shown a second")
    clock.sleep(2.0)
    rate.add(32)
    assert metrics.to_prometheus() == (
        "# HELP frames_per_second frames shown a second\n"
        "# TYPE frames_per_second gauge\n"
        "frames_per_second 16.0\n"
        "# HELP frames_total frames shown\n"
        "# TYPE frames_total counter\n"
        'frames_total{sink="file"} 3\n'
        "# HELP latency_seconds capture to display\n"
        "# TYPE latency_seconds summary\n"
        'latency_seconds{quantile="0.5"} 0.5\n'
        'latency_seconds{quantile="0.95"} 0.5\n'
        'latency_seconds{quantile="0.99"} 0.5\n'
        "latency_seconds_sum 0.5\n"
        "latency_seconds_count 1\n"
        "# HELP sessions open sessions\n"
        "# TYPE sessions gauge\n"
        "sessions 2.0\n"
    )


@given(
    labels=dictionaries(sampled_from(["session", "sink", "path"]), text(max_size=20)),
    value=floats(allow_nan=False),
)
def test_any_label_text_and_number_survives_the_way_through_prometheus(
    labels: dict[str, str], value: float
):
    metrics = Metrics(SimulatedClock())
    metrics.gauge("level", "any\nhelp \\ text", labels).set(value)
    assert read_samples(metrics.to_prometheus()) == {
        ("level", tuple(sorted(labels.items()))): value
    }


@given(value=floats())
def test_json_never_holds_what_json_cannot_say(value: float):
    metrics = Metrics(SimulatedClock())
    metrics.gauge("level", "").set(value)
    shown = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    expected = value if math.isfinite(value) else None
    assert shown == {"level": {"about": "", "series": [{"labels": {}, "value": expected}]}}


def test_an_empty_summary_is_nan_in_prometheus_and_null_in_json(metrics: Metrics):
    metrics.summary("latency_seconds", "")
    samples = read_samples(metrics.to_prometheus())
    assert math.isnan(samples["latency_seconds", (("quantile", "0.5"),)])
    assert samples["latency_seconds_count", ()] == 0
    assert '"p50": null' in json.dumps(metrics.to_json())


def test_the_same_name_and_labels_are_the_same_metric_in_any_order(metrics: Metrics):
    one = metrics.counter("frames_total", "", {"a": "1", "b": "2"})
    assert metrics.counter("frames_total", "", {"b": "2", "a": "1"}) is one
    assert metrics.counter("frames_total", "", {"a": "2", "b": "2"}) is not one


def test_a_name_has_one_kind(metrics: Metrics):
    metrics.counter("frames_total", "")
    with pytest.raises(ValueError, match="frames_total is a Counter, not a Gauge"):
        metrics.gauge("frames_total", "")
    with pytest.raises(ValueError, match="frames_total is a Counter, not a Gauge"):
        metrics.gauge("frames_total", "", {"sink": "file"})


def test_a_removed_metric_is_gone_and_may_come_back_as_new(metrics: Metrics):
    metrics.counter("frames_total", "", {"session": "1"}).add()
    metrics.remove("frames_total", {"session": "1"})
    assert metrics.to_prometheus() == ""
    assert metrics.counter("frames_total", "", {"session": "1"}).value == 0
    with pytest.raises(KeyError):
        metrics.remove("frames_total", {"session": "2"})


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("a-b", {}),
        ("", {}),
        ("1a", {}),
        ("a", {"b c": ""}),
        ("a", {"quantile": ""}),
        ("a", {"__b": ""}),
    ],
)
def test_names_that_prometheus_does_not_allow_are_refused(
    metrics: Metrics, name: str, labels: dict[str, str]
):
    with pytest.raises(ValueError, match=r"no name for|reserves"):
        metrics.counter(name, "", labels)
