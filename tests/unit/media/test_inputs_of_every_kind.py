"""Files as people have them: each gives pictures, or one line that says what is wrong with it."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import SourceError
from streamgen.media.opening import open_source
from streamgen.media.pixels import Framing
from streamgen.types import PictureSize
from tests.media_files import grey, grey_ramp, write_video

SIZE = PictureSize(64, 64)


def portrait(path: Path) -> str:
    return str(write_video(path / "portrait.mp4", grey_ramp(4, height=96, width=54), rotation=90))


def odd_size(path: Path) -> str:
    pictures = grey_ramp(4, height=37, width=53)
    return str(write_video(path / "odd.mkv", pictures, codec="ffv1", pixel_format="bgr0"))


def one_pixel(path: Path) -> str:
    cv2.imwrite(str(path / "dot.png"), grey(90, height=1, width=1))
    return str(path / "dot.png")


def one_row(path: Path) -> str:
    cv2.imwrite(str(path / "row.png"), grey(90, height=1, width=999))
    return str(path / "row.png")


def still_8k(path: Path) -> str:
    cv2.imwrite(str(path / "8k.jpg"), grey(90, height=4320, width=7680))
    return str(path / "8k.jpg")


def ten_bit(path: Path) -> str:
    return str(write_video(path / "deep.mkv", grey_ramp(4), pixel_format="yuv420p10le"))


def interlaced(path: Path) -> str:
    options = {"flags": "+ilme+ildct"}
    film = write_video(
        path / "fields.mkv", grey_ramp(4), fps=25, codec="mpeg2video", codec_options=options
    )
    return str(film)


def variable_rate(path: Path) -> str:
    times_s = [0.0, 0.04, 0.5, 0.51, 2.0]
    options = {"bf": "0"}
    film = write_video(path / "phone.mkv", grey_ramp(5), times_s=times_s, codec_options=options)
    return str(film)


def wrong_ending(path: Path) -> str:
    film = write_video(path / "film.mp4", grey_ramp(4))
    return str(film.rename(path / "film.jpg"))


def cut_off(path: Path) -> str:
    film = write_video(path / "cut.mkv", grey_ramp(24), codec_options={"g": "1"})
    film.write_bytes(film.read_bytes()[:-500])
    return str(film)


def transparent(path: Path) -> str:
    cv2.imwrite(str(path / "glass.png"), np.full((40, 40, 4), 90, np.uint8))
    return str(path / "glass.png")


def grey_16_bit(path: Path) -> str:
    cv2.imwrite(str(path / "scan.png"), np.full((40, 40), 30_000, np.uint16))
    return str(path / "scan.png")


def animated(path: Path) -> str:
    return str(write_video(path / "anim.gif", grey_ramp(4), codec="gif", pixel_format="gray"))


KINDS = [
    portrait, odd_size, one_pixel, one_row, still_8k, ten_bit, interlaced, variable_rate,
    wrong_ending, cut_off, transparent, grey_16_bit, animated,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("fps", [None, 16.0])
def test_every_kind_of_file_gives_pictures_of_one_size(
    kind: Callable[[Path], str], fps: float | None, tmp_path: Path
):
    source = open_source(kind(tmp_path), clock=SimulatedClock(), size=SIZE, fps=fps)
    times_s: list[float] = []
    while (frame := source.read()) is not None:
        assert frame.pixels.shape == (source.facts.size.height, source.facts.size.width, 3)
        assert Framing(SIZE).apply(frame.pixels).shape == (64, 64, 3)
        times_s.append(frame.pts_s)
    source.close()
    assert times_s
    assert times_s == sorted(set(times_s))
    if fps is not None:
        assert times_s == pytest.approx([index / fps for index in range(len(times_s))])


def test_a_portrait_film_stands_upright(tmp_path: Path):
    source = open_source(portrait(tmp_path), clock=SimulatedClock(), size=SIZE)
    assert source.facts.size == PictureSize(54, 96)
    source.close()


def test_a_variable_rate_keeps_its_times_when_brought_to_a_constant_one(tmp_path: Path):
    """Two seconds and a frame at 16 a second, though the file has five pictures."""
    source = open_source(variable_rate(tmp_path), clock=SimulatedClock(), size=SIZE, fps=16)
    frames = list(iter(source.read, None))
    source.close()
    assert 33 <= len(frames) <= 36


def sound_alone(path: Path) -> str:
    with wave.open(str(path / "song.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    return str(path / "song.wav")


def empty(path: Path) -> str:
    (path / "empty.mp4").touch()
    return str(path / "empty.mp4")


def noise(path: Path) -> str:
    (path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    return str(path / "noise.mp4")


def half_a_picture(path: Path) -> str:
    cv2.imwrite(str(path / "half.png"), np.random.default_rng(0).integers(0, 255, (64, 64, 3)))
    data = (path / "half.png").read_bytes()
    (path / "half.png").write_bytes(data[:40])
    return str(path / "half.png")


@pytest.mark.parametrize(
    "kind", [sound_alone, empty, noise, half_a_picture], ids=lambda kind: kind.__name__
)
def test_what_has_no_picture_is_told_in_one_line(kind: Callable[[Path], str], tmp_path: Path):
    with pytest.raises(SourceError) as caught:
        open_source(kind(tmp_path), clock=SimulatedClock(), size=SIZE)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
