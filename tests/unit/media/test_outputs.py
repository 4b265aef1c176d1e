from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamgen.errors import ConfigError
from streamgen.media.outputs import open_sink
from streamgen.media.sink import FrameSink, writing_failed
from streamgen.media.sinks.null import NullSink
from streamgen.media.sinks.video_file import VideoFileSink
from streamgen.types import PictureSize

SIZE = PictureSize(48, 64)


def sink(spec: str) -> FrameSink:
    return open_sink(spec, size=SIZE, fps=10)


def test_a_path_is_a_file(tmp_path: Path) -> None:
    out = sink(str(tmp_path / "out.mkv"))
    assert isinstance(out, VideoFileSink)
    out.close()


def test_null_is_a_sink() -> None:
    assert isinstance(sink("null:"), NullSink)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nul:", "-o nul:: there is no nul:, known: null:, raw:, y4m:, "),
        (" ", "-o is empty; known: null:"),
        ("null:5", "null: takes nothing after the colon, so not '5'"),
        ("y4m:x", "y4m: takes nothing after the colon"),
        ("raw:x", "raw: takes nothing after the colon"),
        ("film", "cannot tell the format of film by its ending; known: .mp4"),
    ],
)
def test_a_sink_that_says_nothing_known_is_told_in_one_line(spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sink(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("spec", "start"), [("-", b"YUV4MPEG2"), ("y4m:", b"YUV4MPEG2")])
def test_standard_output_carries_the_film(spec: str, start: bytes) -> None:
    data = run_with_output_to_a_pipe(spec, num_frames=3)
    assert data.startswith(start)
    assert data.count(b"FRAME\n") == 3


def test_raw_standard_output_carries_the_pixels() -> None:
    assert len(run_with_output_to_a_pipe("raw:", num_frames=3)) == 3 * 48 * 64 * 3


def test_a_pipe_into_head_ends_quietly() -> None:
    """As in `streamgen run ... -o - | head -c 100`: exit code 0 and no word on standard error."""
    writer = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, "-", "10000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    assert len(writer.stdout.read(100)) == 100
    writer.stdout.close()
    assert writer.wait(timeout=60) == 0
    assert writer.stderr.read() == b""
    writer.stderr.close()


SCRIPT = """
import sys
from streamgen.clock import SimulatedClock
from streamgen.media.opening import open_source
from streamgen.media.outputs import open_sink
from streamgen.media.sink import SinkClosed
from streamgen.types import PictureSize
size = PictureSize(48, 64)
source = open_source(f"synthetic:{sys.argv[2]}", clock=SimulatedClock(), size=size)
sink = open_sink(sys.argv[1], size=size, fps=10)
try:
    while (frame := source.read()) is not None:
        sink.write(frame)
except SinkClosed:
    pass
sink.close()
"""


def run_with_output_to_a_pipe(spec: str, *, num_frames: int) -> bytes:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, spec, str(num_frames)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (28, "disk is full: film.mp4; free space or choose another -o"),
        (122, "disk quota is used up: film.mp4; free space or choose another -o"),
        (27, "file may not grow further: film.mp4; raise the size limit or choose another -o"),
        (30, "file system is read-only: film.mp4; choose another -o"),
        (5, "cannot write film.mp4: reason; check the device or choose another -o"),
    ],
)
def test_each_failure_of_writing_names_its_remedy(number: int, message: str) -> None:
    assert str(writing_failed(OSError(number, "reason"), "film.mp4")) == message
