"""What every FrameSink promises, asked of each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamgen.clock import MonotonicClock
from streamgen.media.sink import FrameSink
from streamgen.media.sinks.encoding import ENCODINGS
from streamgen.media.sinks.mjpeg import MjpegSink
from streamgen.media.sinks.network import NetworkSink, network_target
from streamgen.media.sinks.null import NullSink
from streamgen.media.sinks.pipe import RawPipeSink, Y4mPipeSink
from streamgen.media.sinks.video_file import VideoFileSink
from streamgen.media.sinks.viewers import PageAddress
from streamgen.media.sinks.virtual_camera import VirtualCameraSink
from streamgen.media.sinks.whep import WhepSink
from streamgen.media.sources.synthetic import moving_picture
from streamgen.types import Frame, PictureSize

SIZE = PictureSize(47, 63)
OTHER_SIZE = PictureSize(20, 64)
Opener = Callable[[Path], FrameSink]


def null(folder: Path) -> FrameSink:
    return NullSink()


def raw_pipe(folder: Path) -> FrameSink:
    return RawPipeSink((folder / "out.rgb").open("wb"), SIZE)


def y4m_pipe(folder: Path) -> FrameSink:
    return Y4mPipeSink((folder / "out.y4m").open("wb"), SIZE, fps=10)


def video_file(ending: str) -> Opener:
    def open_video_file(folder: Path) -> FrameSink:
        return VideoFileSink(folder / f"out{ending}", SIZE, fps=10)

    open_video_file.__name__ = f"video_file {ending}"
    return open_video_file


def mjpeg(folder: Path) -> FrameSink:
    return MjpegSink(PageAddress("127.0.0.1", 0, ""), SIZE)


def whep(folder: Path) -> FrameSink:
    pytest.importorskip("aiortc")
    return WhepSink(PageAddress("127.0.0.1", 0, ""), SIZE, MonotonicClock())


def playlist(folder: Path) -> FrameSink:
    return NetworkSink(network_target(str(folder / "live.m3u8"), "hls", SIZE, 10))


class NoDevice:
    """The least that pyvirtualcam asks of a backend."""

    def __init__(self, **facts: object) -> None:
        self._device = facts["device"]

    def send(self, frame: np.ndarray) -> None:
        assert frame.size == 48 * 64 * 3

    def close(self) -> None:
        pass

    def device(self) -> object:
        return self._device

    def native_fourcc(self) -> None:
        return None


def virtual_camera(folder: Path) -> FrameSink:
    pyvirtualcam = pytest.importorskip("pyvirtualcam")
    pyvirtualcam.register_backend("none", NoDevice)
    try:
        return VirtualCameraSink(SIZE, backend="none")
    finally:  # or the programs of later tests would find a camera
        pyvirtualcam.camera.BACKENDS.pop("none")


SINKS: list[Opener] = [
    null,
    raw_pipe,
    y4m_pipe,
    *(video_file(ending) for ending in ENCODINGS),
    mjpeg,
    whep,
    playlist,
    virtual_camera,
]


@pytest.fixture(params=SINKS, ids=lambda opener: opener.__name__)
def opener(request: pytest.FixtureRequest) -> Opener:
    return request.param


def frame(index: int, size: PictureSize = SIZE) -> Frame:
    return Frame(moving_picture(index, size), pts_s=index / 10, captured_s=0.0)


def test_it_takes_frames_and_is_closed_once(opener: Opener, tmp_path: Path) -> None:
    sink = opener(tmp_path)
    for index in range(5):
        sink.write(frame(index))
    sink.close()


def test_it_can_be_aborted_instead_of_closed(opener: Opener, tmp_path: Path) -> None:
    sink = opener(tmp_path)
    sink.write(frame(0))
    sink.abort()


@pytest.mark.parametrize("end", ["close", "abort"])
def test_it_can_end_without_a_frame(opener: Opener, tmp_path: Path, end: str) -> None:
    sink = opener(tmp_path)
    if end == "close":
        sink.close()
    else:
        sink.abort()


def test_it_takes_pictures_of_another_size(opener: Opener, tmp_path: Path) -> None:
    sink = opener(tmp_path)
    sink.write(frame(0))
    sink.write(frame(1, OTHER_SIZE))
    sink.write(frame(2))
    sink.close()


def test_it_takes_pictures_that_are_a_view_into_a_clip(opener: Opener, tmp_path: Path) -> None:
    """Also one with gaps between its rows, as a crop has them."""
    clip = np.stack([moving_picture(n, PictureSize(60, 80)) for n in range(3)])
    sink = opener(tmp_path)
    for index in range(3):
        view = clip[index, : SIZE.height, : SIZE.width]
        sink.write(Frame(view, pts_s=index / 10, captured_s=0.0))
    sink.close()


def test_it_leaves_the_pixels_as_they_are(opener: Opener, tmp_path: Path) -> None:
    sink = opener(tmp_path)
    given = frame(3)
    copy = given.pixels.copy()
    sink.write(given)
    sink.close()
    np.testing.assert_array_equal(given.pixels, copy)
