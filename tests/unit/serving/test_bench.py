"""`streamgen bench` measures what it says, and refuses what it cannot compare."""

import json
from pathlib import Path

import pytest

from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError
from streamgen.models.quantised import Linears, quantise_linears
from streamgen.serving.bench.machine import Peaks
from streamgen.serving.bench.measure import Case, Effort, Facts, Runner
from streamgen.serving.bench.report import BenchOptions, compared_with, rows_of, run_bench
from streamgen.serving.bench.stopwatch import without_arithmetic
from streamgen.serving.bench.work import forward_work
from streamgen.serving.host import Host
from streamgen_apps.cli import main
from tests.small_engine import small_dit


def test_a_result_is_complete_and_every_case_has_its_settings() -> None:
    options = BenchOptions(
        preset="tiny-cpu",
        overrides=("model.num_threads=1",),
        compare=("plain",),
        effort=Effort(rounds=2, chunks=2, warm_up=1),
        cold_starts=0,
        memory_frames=0,
    )
    found = run_bench(options, tell=lambda text: None)
    assert found.keys() == {
        "machine", "peaks", "this", "plain", "parts", "first_frame_warm_s", "overhead", "ratios"
    }  # fmt: skip
    this, plain = found["this"], found["plain"]
    assert isinstance(this, dict)
    assert isinstance(plain, dict)
    assert this["settings"]["operations"] == "few calls"  # type: ignore[index,call-overload]
    assert plain["settings"]["operations"] == "plain"  # type: ignore[index,call-overload]
    assert this["frames_per_second"]["repeats"] == 2  # type: ignore[index,call-overload]
    assert json.loads(json.dumps(found)) == found
    assert any(name == "ratios / this over plain" for name, _ in rows_of(found))


def test_work_is_counted_from_the_weights() -> None:
    """One row by hand: 2 multiply-adds a weight and token, and attention over window and words."""
    model = small_dit(num_blocks=2)
    dim, ffn, query, window, words = 32, 64, 4, 16, 6
    a_block = 6 * dim * dim + 2 * dim * ffn  # q k v o, then q o of the words, then the FFN
    outside = 4 * 4 * dim + dim * 16  # patches of 2x2x4 in, and out
    linear = 2 * (2 * a_block + outside) * query
    attention = 2 * 4 * dim * query * (window + words)
    work = forward_work(model, rows=1, query_tokens=query, window_tokens=window)
    assert work.flops == linear + attention
    assert work.num_bytes == 4 * (2 * a_block + outside) + 4 * 2 * 2 * window * dim
    assert work.limit_s(Peaks(tflops=1e-6, gb_per_s=1e9)) == work.flops / 1e6
    assert work.limit_s(Peaks(tflops=1e9, gb_per_s=1e-6)) == work.num_bytes / 1e3


def test_linears_in_8_bits_are_the_same_work_in_fewer_bytes() -> None:
    model = small_dit()
    before = forward_work(model, rows=1, query_tokens=4, window_tokens=16)
    quantise_linears(model, Linears.FP8)
    after = forward_work(model, rows=1, query_tokens=4, window_tokens=16)
    assert after.flops == before.flops
    assert after.num_bytes < before.num_bytes


@pytest.mark.parametrize("preset", ["tiny-cpu", "tiny-cpu-v2v"])
def test_a_stopwatch_streams_pictures_of_the_same_size(preset: str) -> None:
    with Host(preset) as host:
        bundle = without_arithmetic(host.pipeline.bundle)
    runner = Runner(Case("stopwatch", preset, ()), MonotonicClock(), bundle=bundle)
    runner.warm_up(1)
    runner.run_round(3)
    runner.close()
    assert len(runner.chunk_s) == 3


def test_a_stored_result_is_compared_with_and_what_differs_is_named(tmp_path: Path) -> None:
    def result(fps: float, steps: int) -> Facts:
        this: Facts = {"frames_per_second": {"median": fps}, "settings": {"steps": steps}}
        return {"machine": {"cpu": "A"}, "this": this}

    path = tmp_path / "before.json"
    path.write_text(json.dumps(result(50.0, 4)))
    assert compared_with(result(75.0, 2), path) == {
        "file": str(path),
        "speed_up": 1.5,
        "settings_that_differ": ["steps"],
        "same_machine": True,
    }


@pytest.mark.parametrize("text", ["", "[]", '{"this": {}}', '{"this": null}'])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a result of streamgen bench"):
        compared_with({}, path)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds 0 is not in 1 to"),
        (["--chunks", "1"], "--chunks 1 is not in 2 to"),
        (["--compare", "faster"], 'neither "plain"'),
        (["--compare", "no.json"], "there is no such file"),
        (["--memory-frames", "10"], "tell nothing"),
        (["--json", "no/such/folder/x.json"], "its folder does not exist"),
        (["--preset", "nothing"], "nothing"),
    ],
)
def test_rubbish_is_refused_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert complaint in shown[-1]
