"""What every FrameSource promises, asked of each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.media.pixels import size_of
from streamgen.media.source import FrameSource
from streamgen.media.sources.retiming import RealTimeSource
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.media.sources.video_file import VideoFileSource
from streamgen.types import Frame, PictureSize
from tests.media_files import grey, grey_ramp, write_video

NUM_FRAMES = 6


def synthetic(folder: Path, clock: SimulatedClock) -> FrameSource:
    return SyntheticSource(PictureSize(47, 63), fps=10, clock=clock, num_frames=NUM_FRAMES)


def film(folder: Path, clock: SimulatedClock) -> FrameSource:
    return VideoFileSource(write_video(folder / "film.mp4", grey_ramp(NUM_FRAMES)), clock=clock)


def repeated_film(folder: Path, clock: SimulatedClock) -> FrameSource:
    path = write_video(folder / "film.mkv", grey_ramp(NUM_FRAMES // 2))
    return VideoFileSource(path, clock=clock, plays=2)


def resampled_film(folder: Path, clock: SimulatedClock) -> FrameSource:
    path = write_video(folder / "film.mp4", grey_ramp(NUM_FRAMES * 2), fps=20)
    return VideoFileSource(path, clock=clock, fps=10)


def still_picture(folder: Path, clock: SimulatedClock) -> FrameSource:
    path = folder / "still.png"
    cv2.imwrite(str(path), grey(90))
    return VideoFileSource(path, clock=clock, plays=NUM_FRAMES)


def real_time(folder: Path, clock: SimulatedClock) -> FrameSource:
    return RealTimeSource(film(folder, clock), clock)


SOURCES = [synthetic, film, repeated_film, resampled_film, still_picture, real_time]
Opener = Callable[[Path, SimulatedClock], FrameSource]


@pytest.fixture(params=SOURCES, ids=lambda opener: opener.__name__)
def opener(request: pytest.FixtureRequest) -> Opener:
    return request.param


def read_all(source: FrameSource) -> list[Frame]:
    frames: list[Frame] = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


def test_it_gives_its_frames_then_none_for_ever(opener: Opener, tmp_path: Path) -> None:
    source = opener(tmp_path, SimulatedClock())
    assert len(read_all(source)) == NUM_FRAMES
    assert source.read() is None
    assert source.read() is None
    source.close()


def test_every_frame_is_rgb_of_the_size_it_states(opener: Opener, tmp_path: Path) -> None:
    source = opener(tmp_path, SimulatedClock())
    size = source.facts.size
    for frame in read_all(source):
        assert size_of(frame.pixels) == size
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.flags.c_contiguous
    source.close()


def test_times_start_at_zero_and_grow_at_the_rate_it_states(opener: Opener, tmp_path: Path) -> None:
    source = opener(tmp_path, SimulatedClock())
    times_s = [frame.pts_s for frame in read_all(source)]
    assert times_s[0] == 0
    assert times_s == pytest.approx([n / source.facts.fps for n in range(NUM_FRAMES)], abs=2e-3)
    source.close()


def test_frames_carry_the_time_of_the_clock(opener: Opener, tmp_path: Path) -> None:
    source = opener(tmp_path, SimulatedClock(start_s=1000.0))
    captured_s = [frame.captured_s for frame in read_all(source)]
    assert captured_s == sorted(captured_s)
    assert captured_s[0] == 1000.0
    source.close()


def test_earlier_frames_stay_as_they_were(opener: Opener, tmp_path: Path) -> None:
    """A source may give the same array again, but never changes one that it has given."""
    source = opener(tmp_path, SimulatedClock())
    first = source.read()
    assert first is not None
    copy = first.pixels.copy()
    read_all(source)
    np.testing.assert_array_equal(first.pixels, copy)
    source.close()


def test_it_can_be_closed_before_its_end(opener: Opener, tmp_path: Path) -> None:
    source = opener(tmp_path, SimulatedClock())
    source.read()
    source.close()


def test_opened_twice_it_gives_the_same_frames(opener: Opener, tmp_path: Path) -> None:
    first, second = opener(tmp_path, SimulatedClock()), opener(tmp_path, SimulatedClock())
    for one, other in zip(read_all(first), read_all(second), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    first.close()
    second.close()
