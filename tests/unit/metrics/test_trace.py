"""Spans are timed by the clock, the newest stay, and Chrome's format holds them all."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from streamgen.clock import SimulatedClock
from streamgen.metrics.trace import Span, Trace


def test_a_span_lasts_as_long_as_its_body():
    clock = SimulatedClock(start_s=2.0)
    trace = Trace(clock, capacity=8)
    with trace.span("denoise", track="engine", args={"tick": 3}):
        clock.sleep(0.25)
    assert trace.spans() == (Span("denoise", "engine", 2.0, 2.25, {"tick": 3}),)


def test_a_span_is_recorded_also_when_its_body_raises():
    trace = Trace(SimulatedClock(), capacity=8)
    with pytest.raises(KeyError), trace.span("decode"):
        raise KeyError
    assert [span.name for span in trace.spans()] == ["decode"]


@given(capacity=integers(0, 10), num_spans=integers(0, 30))
def test_the_newest_spans_stay_and_the_others_are_counted(capacity: int, num_spans: int):
    trace = Trace(SimulatedClock(), capacity=capacity)
    for i in range(num_spans):
        with trace.span(str(i)):
            pass
    kept = [span.name for span in trace.spans()]
    assert kept == [str(i) for i in range(num_spans)][max(0, num_spans - capacity) :]
    assert trace.num_dropped == num_spans - len(kept)


def test_chrome_gets_microseconds_and_one_named_thread_a_track(tmp_path: Path):
    clock = SimulatedClock(start_s=1.0)
    trace = Trace(clock, capacity=8, process=2)
    with trace.span("outer", track="engine"):
        clock.sleep(0.001)
        with trace.span("inner", track="gpu"):
            clock.sleep(0.002)
    trace.write(tmp_path / "trace.json")
    read = json.loads((tmp_path / "trace.json").read_text())
    names = {e["tid"]: e["args"]["name"] for e in read["traceEvents"] if e["ph"] == "M"}
    spans = {e["name"]: e for e in read["traceEvents"] if e["ph"] == "X"}
    assert names[spans["outer"]["tid"]] == "engine"
    assert names[spans["inner"]["tid"]] == "gpu"
    assert spans["outer"]["ts"] == pytest.approx(1_000_000)
    assert spans["outer"]["dur"] == pytest.approx(3_000)
    assert spans["inner"]["dur"] == pytest.approx(2_000)
    assert {e["pid"] for e in read["traceEvents"]} == {2}


def test_the_default_track_is_the_thread():
    trace = Trace(SimulatedClock(), capacity=8)

    def work() -> None:
        with trace.span("read"):
            pass

    thread = threading.Thread(target=work, name="camera")
    thread.start()
    thread.join()
    assert trace.spans()[0].track == "camera"


def test_time_does_not_run_backwards_in_a_span():
    with pytest.raises(ValueError, match="ends at"):
        Trace(SimulatedClock(), capacity=1).add(Span("x", "t", 2.0, 1.0, {}))


def test_a_negative_capacity_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        Trace(SimulatedClock(), capacity=-1)
