"""The `streamgen` command as a process of its own: pipes, signals, and what starting it costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-m", "streamgen_apps.cli")
BALL = "a red ball over a green field"
SMALL = ("--set", "picture.height=64", "--set", "picture.width=64", "--set", "model.num_threads=1")
OLD = b"a film that was there before"
TIMEOUT_S = 60.0  # for a busy machine; each test takes two or three seconds
SAYS_WHEN = """\
import sys
from streamgen_apps.cli import main
from streamgen.media.sinks import video_file
write, count = video_file.VideoFileSink.write, 0
def counted(self, frame):
    global count
    write(self, frame)
    count += 1
    if count == 64:
        print("now", flush=True)
video_file.VideoFileSink.write = counted
sys.exit(main(sys.argv[1:]))
"""
SAYS_NOW_IN_FIRST_TICK = """\
import sys
from streamgen_apps.cli import main
from streamgen.engine.engine import Engine
def stuck(self):
    print("now", flush=True)
    while True:
        pass
Engine.tick = stuck
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paths = [str(ROOT), str(ROOT / "apps"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (tmp_path / "old.mp4").write_bytes(OLD)
    return tmp_path


def num_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test has started; none outlives it."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


def endless(program: str, started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Run `program` with an endless film as its task, until it says "now"."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", BALL, "-o", "old.mp4", *SMALL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    return process


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", BALL, "--frames"]])
def test_help_and_wrong_usage_import_nothing_heavy(arguments: list[str]):
    program = (
        "import sys; from streamgen_apps.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'av', 'cv2', 'einops'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_dash_writes_y4m_to_standard_output_and_nothing_else():
    done = subprocess.run(
        [*COMMAND, "run", BALL, "-o", "-", "--frames", "5", *SMALL],
        capture_output=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    header, _, rest = done.stdout.partition(b"\n")
    assert header.startswith(b"YUV4MPEG2 W64 H64 F16:1 ")
    assert len(rest) == 5 * (len(b"FRAME\n") + 64 * 64 * 3 // 2)
    assert done.stderr.startswith(b"standard output: 0.3 s of video, 5 frames, ")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_early_ends_the_run_quietly():
    process = subprocess.Popen(
        [*COMMAND, "run", BALL, "-o", "-", *SMALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100)
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(TIMEOUT_S) == 0
    assert told.startswith(b"standard output: ")
    assert told.count(b"\n") == 1


@pytest.mark.parametrize(
    ("redirection", "words"),
    [(">&-", "standard output: Bad file descriptor"), (">/dev/full", "disk is full: the pipe")],
)
def test_standard_output_that_takes_nothing_is_told_in_one_line(redirection: str, words: str):
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {redirection}', "-", *COMMAND, "run", BALL, "-o", "-", *SMALL],
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 3
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_list_that_nobody_reads_to_its_end_is_no_failure():
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", *COMMAND, "presets"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_film_is_finished(
    number: signal.Signals, folder: Path, started: list[subprocess.Popen[str]]
):
    process = endless(SAYS_WHEN, started)
    process.send_signal(number)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert told.count("\n") == 1
    assert told.startswith("old.mp4: ")
    assert f", {num_frames(folder / 'old.mp4')} frames, " in told
    assert os.listdir(folder) == ["old.mp4"]


def test_an_interruption_before_the_first_frame_leaves_everything_as_it_was(
    folder: Path, started: list[subprocess.Popen[str]]
):
    process = endless(SAYS_NOW_IN_FIRST_TICK, started)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert told == ""
    assert os.listdir(folder) == ["old.mp4"]
    assert (folder / "old.mp4").read_bytes() == OLD


def test_a_killed_film_can_be_played_and_the_old_one_stays(
    folder: Path, started: list[subprocess.Popen[str]]
):
    process = endless(SAYS_WHEN, started)
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    assert (folder / "old.mp4").read_bytes() == OLD
    # Of 64 frames, four may be in the fragment that was under way and some fifteen in the encoder.
    assert num_frames(folder / "old.partial.mp4") >= 32
