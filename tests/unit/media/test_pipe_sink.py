from __future__ import annotations

import os
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import SinkError
from streamgen.media.sink import FrameSink, SinkClosed
from streamgen.media.sinks.pipe import RawPipeSink, Y4mPipeSink
from streamgen.media.sources.synthetic import moving_picture
from streamgen.media.sources.video_file import VideoFileSource
from streamgen.types import Frame, PictureSize

SIZE = PictureSize(6, 8)


class Kept(BytesIO):
    """Keeps what was written to it when it is closed."""

    data = b""

    def close(self) -> None:
        if not self.closed:
            self.data = self.getvalue()
        super().close()


def frame(index: int, size: PictureSize = SIZE) -> Frame:
    return Frame(moving_picture(index, size), pts_s=index / 10, captured_s=0.0)


def test_raw_is_the_pixels_and_nothing_else() -> None:
    stream = Kept()
    sink = RawPipeSink(stream, SIZE)
    sink.write(frame(0))
    sink.write(frame(1))
    sink.close()
    assert stream.closed
    assert stream.data == frame(0).pixels.tobytes() + frame(1).pixels.tobytes()


def test_y4m_can_be_played(tmp_path: Path) -> None:
    """FFmpeg reads it back; a plain colour survives BT.601 within rounding."""
    path = tmp_path / "film.y4m"
    sink = Y4mPipeSink(path.open("wb"), PictureSize(47, 63), fps=10)
    picture = np.empty((47, 63, 3), np.uint8)
    picture[:] = (200, 40, 90)
    for _ in range(3):
        sink.write(Frame(picture, 0.0, 0.0))
    sink.close()
    source = VideoFileSource(path, clock=SimulatedClock())
    assert source.facts.size == PictureSize(48, 64)
    assert source.facts.fps == 10
    read = [source.read() for _ in range(4)]
    source.close()
    assert read[3] is None
    for got in read[:3]:
        assert got is not None
        assert np.abs(got.pixels.astype(int) - (200, 40, 90)).max() <= 4


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(16, "16:1"), (29.97, "2997:100"), (float(Fraction(24000, 1001)), "24000:1001")],
)
def test_y4m_states_the_rate_as_a_fraction(fps: float, rate: str) -> None:
    stream = Kept()
    sink = Y4mPipeSink(stream, SIZE, fps=fps)
    sink.write(frame(0))
    sink.close()
    assert stream.data.startswith(f"YUV4MPEG2 W8 H6 F{rate} Ip A1:1 C420jpeg".encode())


@pytest.mark.parametrize("kind", ["raw", "y4m"])
def test_a_reader_that_goes_away_ends_the_run_quietly(kind: str) -> None:
    readable, writable = os.pipe()
    stream = os.fdopen(writable, "wb")
    sink: FrameSink = (
        RawPipeSink(stream, SIZE) if kind == "raw" else Y4mPipeSink(stream, SIZE, fps=10)
    )
    sink.write(frame(0))
    os.close(readable)
    with pytest.raises(SinkClosed):
        sink.write(frame(1))
    sink.close()
    assert stream.closed


def test_a_full_device_is_told() -> None:
    sink = RawPipeSink(Path("/dev/full").open("wb"), SIZE)  # noqa: SIM115 - the sink owns it
    with pytest.raises(SinkError, match="disk is full: the pipe; free space"):
        sink.write(frame(0))
    sink.close()
