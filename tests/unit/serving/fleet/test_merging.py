"""Metrics of replicas in one text."""

from __future__ import annotations

from streamgen.clock import SimulatedClock
from streamgen.metrics.export import Metrics
from streamgen.serving.fleet.merging import merged


def text_of(value: int) -> str:
    metrics = Metrics(SimulatedClock())
    metrics.counter("frames_total", "Frames.").add(value)
    metrics.counter("told_total", "What was told.", {"verdict": "full, or {not}"}).add(2 * value)
    return metrics.to_prometheus()


def test_each_line_says_whose_it_is_and_each_metric_has_one_head():
    lines = merged({"r0": text_of(1), "r1": text_of(3)}).splitlines()
    assert lines == [
        "# HELP frames_total Frames.",
        "# TYPE frames_total counter",
        'frames_total{replica="r0"} 1',
        'frames_total{replica="r1"} 3',
        "# HELP told_total What was told.",
        "# TYPE told_total counter",
        'told_total{replica="r0",verdict="full, or {not}"} 2',
        'told_total{replica="r1",verdict="full, or {not}"} 6',
    ]


def test_no_replicas_have_no_metrics():
    assert merged({}) == ""
