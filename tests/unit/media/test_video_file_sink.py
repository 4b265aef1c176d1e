from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import ConfigError, SinkError
from streamgen.media.sinks.encoding import ENCODINGS
from streamgen.media.sinks.video_file import VideoFileSink
from streamgen.media.sources.video_file import VideoFileSource
from streamgen.types import Frame, PictureSize, Pixels
from tests.media_files import grey, grey_ramp, number_of

SIZE = PictureSize(48, 64)
ENDINGS = sorted(ENCODINGS)


def frames(pictures: list[Pixels], *, fps: float = 10) -> list[Frame]:
    return [Frame(pixels, 5.0 + index / fps, 0.0) for index, pixels in enumerate(pictures)]


def sink_with(target: Path, pictures: list[Pixels], *, size: PictureSize = SIZE) -> VideoFileSink:
    sink = VideoFileSink(target, size, fps=10)
    for frame in frames(pictures):
        sink.write(frame)
    return sink


def read_back(path: Path) -> list[Frame]:
    source = VideoFileSource(path, clock=SimulatedClock())
    read: list[Frame] = []
    while (frame := source.read()) is not None:
        read.append(frame)
    source.close()
    return read


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_written_is_read_back(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"film{ending}"
    sink_with(target, grey_ramp(12)).close()
    read = read_back(target)
    assert [number_of(frame.pixels) for frame in read] == list(range(12))
    assert [frame.pts_s for frame in read] == pytest.approx([n / 10 for n in range(12)], abs=2e-3)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_colours_are_kept(tmp_path: Path, ending: str) -> None:
    """Within what 4:2:0, limited range and a constant quality cost on a plain area."""
    picture = np.empty((48, 64, 3), np.uint8)
    picture[:] = (200, 40, 90)
    target = tmp_path / f"film{ending}"
    sink_with(target, [picture] * 3).close()
    assert np.abs(read_back(target)[1].pixels.astype(int) - (200, 40, 90)).max() <= 8


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("size", [PictureSize(47, 63), PictureSize(1, 1)])
def test_odd_sizes_grow_to_even_ones(tmp_path: Path, ending: str, size: PictureSize) -> None:
    target = tmp_path / f"film{ending}"
    sink_with(target, grey_ramp(2, height=size.height, width=size.width), size=size).close()
    height, width = size.height + size.height % 2, size.width + size.width % 2
    assert read_back(target)[0].pixels.shape == (height, width, 3)


def test_dropped_frames_leave_a_still_and_not_a_hurry(tmp_path: Path) -> None:
    target = tmp_path / "film.mkv"
    sink = VideoFileSink(target, SIZE, fps=10)
    for index in (0, 1, 6, 7):
        sink.write(Frame(grey(20 + 10 * index), index / 10 + 0.003 * index, 0.0))
    sink.close()
    assert [frame.pts_s for frame in read_back(target)] == pytest.approx([0, 0.1, 0.6, 0.7])


def test_frames_at_one_moment_are_spread_over_the_grid(tmp_path: Path) -> None:
    target = tmp_path / "film.mkv"
    sink = VideoFileSink(target, SIZE, fps=10)
    for pixels in grey_ramp(3):
        sink.write(Frame(pixels, 7.0, 0.0))
    sink.close()
    assert [frame.pts_s for frame in read_back(target)] == pytest.approx([0, 0.1, 0.2])


def test_an_existing_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    target.write_bytes(b"precious")
    sink = sink_with(target, grey_ramp(20))
    assert target.read_bytes() == b"precious"
    sink.close()
    assert len(read_back(target)) == 20


def test_a_run_that_failed_keeps_the_old_file_and_what_was_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "film.mp4"
    target.write_bytes(b"precious")
    with caplog.at_level(logging.WARNING):
        sink_with(target, grey_ramp(5)).abort()
    assert target.read_bytes() == b"precious"
    assert len(read_back(tmp_path / "film.partial.mp4")) == 5
    assert "film.partial.mp4" in caplog.text


def test_what_another_run_left_is_not_overwritten(tmp_path: Path) -> None:
    left = tmp_path / "film.partial.mp4"
    left.write_bytes(b"left")
    sink = sink_with(tmp_path / "film.mp4", grey_ramp(2))
    assert (tmp_path / "film.partial-2.mp4").exists()
    sink.close()
    assert left.read_bytes() == b"left"
    assert not (tmp_path / "film.partial-2.mp4").exists()


@pytest.mark.parametrize("end", [VideoFileSink.close, VideoFileSink.abort])
def test_without_a_frame_nothing_is_left_behind(tmp_path: Path, end: object) -> None:
    target = tmp_path / "film.mp4"
    target.write_bytes(b"precious")
    assert callable(end)
    end(VideoFileSink(target, SIZE, fps=10))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real = tmp_path / "there" / "film.mp4"
    link = tmp_path / "link.mp4"
    link.symlink_to(real)
    sink_with(link, grey_ramp(2)).close()
    assert link.is_symlink()
    assert len(read_back(real)) == 2


def test_a_process_that_is_killed_leaves_a_film_that_plays(tmp_path: Path) -> None:
    """KEYFRAME_INTERVAL_S and the pictures inside the encoder are lost, the rest is not."""
    target = tmp_path / "film.mp4"
    script = (
        "import os, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from streamgen.media.sinks.video_file import VideoFileSink\n"
        "from streamgen.types import Frame, PictureSize\n"
        "sink = VideoFileSink(Path(sys.argv[1]), PictureSize(48, 64), fps=10)\n"
        "for n in range(150):\n"
        "    sink.write(Frame(np.full((48, 64, 3), n, np.uint8), n / 10, 0.0))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target)], timeout=60, check=False)
    assert done.returncode == -9
    assert not target.exists()
    assert len(read_back(tmp_path / "film.partial.mp4")) >= 60


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".gif"])
def test_a_file_that_may_not_grow_is_told_and_taken_away(tmp_path: Path, ending: str) -> None:
    """A limit on the size of files stands in for a full disk: the same path, another number."""
    target = tmp_path / f"film{ending}"
    target.write_bytes(b"precious")
    script = (
        "import resource, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from streamgen.errors import SinkError\n"
        "from streamgen.media.sinks.video_file import VideoFileSink\n"
        "from streamgen.types import Frame, PictureSize\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "sink = VideoFileSink(Path(sys.argv[1]), PictureSize(48, 64), fps=10)\n"
        "noise = np.random.default_rng(0)\n"
        "try:\n"
        "    for n in range(200):\n"
        "        pixels = noise.integers(0, 255, (48, 64, 3)).astype(np.uint8)\n"
        "        sink.write(Frame(pixels, n / 10, 0.0))\n"
        "    sink.close()\n"
        "except SinkError as error:\n"
        "    sink.close()\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(target)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("file may not grow further: ")
    assert done.stdout.count("\n") == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


def test_a_full_disk_at_the_last_moment_is_told_and_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems notice only when the data is to be on the disk."""
    target = tmp_path / "film.mp4"
    target.write_bytes(b"precious")
    sink = sink_with(target, grey_ramp(3))

    def full(file_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SinkError, match=r"^disk is full: .*; free space or choose another -o$"):
        sink.close()
    sink.close()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


def test_writing_after_the_end_is_a_programming_error(tmp_path: Path) -> None:
    sink = sink_with(tmp_path / "film.mp4", grey_ramp(2))
    sink.close()
    with pytest.raises(ValueError, match="has ended"):
        sink.write(frames(grey_ramp(1))[0])


def test_mistakes_in_the_name_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"by its ending; known: \.mp4, \.mov, \.mkv, \.webm"):
        VideoFileSink(tmp_path / "film.xyz", SIZE, fps=10)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(SinkError, match="is a folder; name a file in it"):
        VideoFileSink(tmp_path / "folder.mp4", SIZE, fps=10)
    with pytest.raises(SinkError, match=r"there is no folder .*; create it"):
        VideoFileSink(tmp_path / "nowhere" / "film.mp4", SIZE, fps=10)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SinkError, match="is a device or a pipe"):
        VideoFileSink(tmp_path / "pipe.mp4", SIZE, fps=10)

    def refuse(path: Path, mode: str, buffering: int) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SinkError, match="no permission to write"):
        VideoFileSink(tmp_path / "film.mp4", SIZE, fps=10)
