"""`streamgen run` with several outputs, and what it says while nothing is seen."""

from __future__ import annotations

import logging
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from streamgen.clock import SimulatedClock
from streamgen.metrics.export import Metrics
from streamgen.serving.outputs import Outputs
from streamgen.types import PictureSize
from streamgen_apps import run as run_module
from streamgen_apps.cli import main
from streamgen_apps.console import Console

SMALL = ("--set", "picture.height=64", "--set", "picture.width=64", "--set", "model.num_threads=1")

Usage = namedtuple("Usage", "total free")


@pytest.fixture(autouse=True)
def root_handlers() -> Iterator[None]:
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before


def test_one_run_fills_every_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = ("-o", "a.mp4", "-o", "b.gif", "-o", "null:")
    assert main(["run", "a red ball", *outputs, "--frames", "6", *SMALL]) == 0
    for name in ("a.mp4", "b.gif"):
        with av.open(name) as container:
            assert sum(1 for _ in container.decode(video=0)) == 6
    err = capsys.readouterr().err
    assert err.startswith("a.mp4, b.gif, null: 0.4 s of video, 6 frames, ")
    assert err.count("\n") == 1


def test_an_output_that_is_given_twice_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "a red ball", "-o", "a.mp4", "-o", "a.mp4", *SMALL]) == 2
    assert "-o a.mp4 is given 2 times; give it once" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_first_picture_that_does_not_come_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_module, "PATIENCE_S", 0.01)
    clock = SimulatedClock()
    size = PictureSize(8192, 128)
    outputs = Outputs(["null:"], size=size, fps=16, clock=clock, metrics=Metrics(clock))
    reporter = run_module.Reporter(outputs, Console(lambda line: None))
    told = ""
    with reporter.impatient(str(size)):
        for _ in range(1000):
            told += capsys.readouterr().err
            if told:
                break
            threading.Event().wait(0.01)
    outputs.abort()
    assert "128x8192 pixels are much work for this machine: try --set picture.height=128" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("absent/a.mp4", "there is no folder absent; create it or choose another -o"),
        ("absent/a.m3u8", "there is no folder absent; create it or choose another -o"),
        ("a.mpx", "cannot tell the format of a.mpx by its ending"),
        ("folder.mp4", "folder.mp4 names a folder; name a file in it"),
        (f"{'x' * 250}.mp4", "File name too long"),
    ],
)
def test_an_output_that_cannot_be_is_told_before_the_model_loads(
    target: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert_refused(target, told, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("target", ["kept.mp4", "a.m3u8"])
def test_a_folder_that_is_not_ones_own_is_told_before_the_model_loads(
    target: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("streamgen.media.sinks.video_file.os.access", lambda *_: False)
    told = f"no permission to write {target}; change its folder's rights or the -o"
    assert_refused(target, told, tmp_path, monkeypatch, capsys)


def test_a_full_disk_is_told_before_the_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = Usage(total=2**40, free=0)
    monkeypatch.setattr("streamgen.media.sinks.video_file.shutil.disk_usage", lambda _: usage)
    told = "disk is full: kept.mp4; free space or choose another -o"
    assert_refused("kept.mp4", told, tmp_path, monkeypatch, capsys)


def assert_refused(
    target: str,
    told: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one line, with no model loaded, nothing made and what is there left as it was."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.chdir(folder)
    monkeypatch.setattr("streamgen.serving.host.Host", never)
    Path("kept.mp4").write_bytes(b"a film")
    Path("folder.mp4").mkdir()
    assert main(["run", "a red ball", "-o", "null:", "-o", target, *SMALL]) != 0
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == {"kept.mp4", "folder.mp4"}
    assert Path("kept.mp4").read_bytes() == b"a film"
