"""What whoever watches over a server gets to read while streams run under deadlines."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.live_server import LiveServer, live_server
from tests.unit.serving.gateway.test_server import SMALL, VIDEO, page_of

TEXT = "tiny-cpu"
LIVE = (
    *SMALL, "picture.fps=1", "engine.policy=slo_aware", "service.latency_s=60",
    "service.first_frame_s=90",
)  # fmt: skip
PROMISED = {
    "time to first frame": 'streamgen_first_frame_seconds_count{preset="VIDEO"}',
    "frame age p50": 'streamgen_frame_age_seconds{preset="VIDEO",quantile="0.5"}',
    "frame age p95": 'streamgen_frame_age_seconds{preset="VIDEO",quantile="0.95"}',
    "frame age p99": 'streamgen_frame_age_seconds{preset="VIDEO",quantile="0.99"}',
    "deadline misses": 'streamgen_deadlines_missed_total{preset="VIDEO"}',
    "stalls": 'streamgen_stalls_total{preset="VIDEO"}',
    "jitter": 'streamgen_jitter_seconds_count{preset="VIDEO"}',
    "input dropped": 'streamgen_dropped_total{preset="VIDEO",cause="input_dropped"}',
    "generated late": 'streamgen_dropped_total{preset="VIDEO",cause="generated_late"}',
    "encode skipped": 'streamgen_dropped_total{preset="VIDEO",cause="encode_skipped"}',
    "sink dropped": 'streamgen_dropped_total{preset="VIDEO",cause="sink_dropped"}',
    "rows per batch": 'streamgen_batch_rows_count{preset="VIDEO"}',
    "ladder level": 'streamgen_ladder_level{preset="VIDEO"}',
    "admitted": 'streamgen_admissions_total{preset="VIDEO",verdict="full"}',
    "admitted lower": 'streamgen_admissions_total{preset="VIDEO",verdict="lower"}',
    "refused": 'streamgen_admissions_total{preset="VIDEO",verdict="refused"}',
    "model error": 'streamgen_latency_model_error_ratio_count{preset="VIDEO",work="denoise"}',
}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server({VIDEO: LIVE, TEXT: SMALL}, num_places=2) as running:
        yield running


def read(server: LiveServer, path: str) -> str:
    with urllib.request.urlopen(server.url + path) as answer:
        return answer.read().decode()


def play(server: LiveServer, num_pictures: int) -> dict[str, object]:
    """A visitor who shows pictures until as many have come back; the last figures."""

    async def talk() -> dict[str, object]:
        async with page_of(server) as page:
            await page.start(VIDEO, "a pencil sketch")
            for number in range(num_pictures):
                await page.show(10 * number)
                await page.hear("taken")
            await page.picture()
            return await page.hear("figures")

    return asyncio.run(talk())


def test_every_promised_metric_is_there_once_and_counts(server: LiveServer) -> None:
    """Of two presets, each sample has one line, as Prometheus wants it."""
    figures = play(server, 24)
    assert figures["quality"]
    lines = read(server, "/metrics").splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    kinds = [line for line in lines if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds))
    assert len(samples) == sum(not line.startswith("#") for line in lines)
    assert all(re.fullmatch(r"[a-z_]+(\{[^{}]*\})?", name) for name in samples)
    for told, name in PROMISED.items():
        assert name.replace("VIDEO", VIDEO) in samples, told
    for told in ("time to first frame", "rows per batch", "model error"):
        assert float(samples[PROMISED[told].replace("VIDEO", VIDEO)]) > 0, told
    admitted = [
        samples[PROMISED[one].replace("VIDEO", VIDEO)] for one in ("admitted", "admitted lower")
    ]
    assert sum(map(float, admitted)) == 1


def test_programs_read_the_same_as_json(server: LiveServer) -> None:
    shown = json.loads(read(server, "/metrics.json"))
    assert set(shown["presets"]) == {VIDEO, TEXT}
    assert "streamgen_frame_age_seconds" in shown["presets"][VIDEO]
    assert shown["places_taken"] in (0, 1)  # a place is free a moment after its visitor left


def test_a_trace_of_any_interval_is_there_on_request(server: LiveServer) -> None:
    play(server, 12)
    events = json.loads(read(server, "/trace?seconds=60"))["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert {"decide", "encode", "denoise", "decode"} <= {span["name"] for span in spans}
    assert not [
        e for e in json.loads(read(server, "/trace?seconds=0"))["traceEvents"] if e["ph"] == "X"
    ]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(server, "/trace?preset=none")
