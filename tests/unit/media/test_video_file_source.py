from __future__ import annotations

import logging
import os
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import SourceError
from streamgen.media.sources.video_file import VideoFileSource
from streamgen.types import Frame, PictureSize, Pixels
from tests.media_files import grey, grey_ramp, number_of, write_video

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def opened(path: Path, *, fps: float | None = None, plays: int | None = 1) -> VideoFileSource:
    return VideoFileSource(path, clock=SimulatedClock(), fps=fps, plays=plays)


def frames_of(path: Path, *, fps: float | None = None, plays: int | None = 1) -> list[Frame]:
    source = opened(path, fps=fps, plays=plays)
    frames: list[Frame] = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    return frames


def numbers_of(frames: list[Frame]) -> list[int]:
    return [number_of(frame.pixels) for frame in frames]


def refusal_of(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        opened(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
def test_a_film_gives_its_frames_with_their_times(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"film{ending}", grey_ramp(8), codec_options={"g": "4"})
    source = opened(path)
    assert source.facts.size == PictureSize(48, 64)
    assert source.facts.fps == pytest.approx(10)
    source.close()
    frames = frames_of(path)
    assert numbers_of(frames) == list(range(8))
    assert [frame.pts_s for frame in frames] == pytest.approx([n / 10 for n in range(8)], abs=2e-3)


def test_colours_survive_decoding(tmp_path: Path) -> None:
    """Limited range and the chroma matrix are undone: within rounding of 8-bit 4:2:0."""
    picture = np.empty((48, 64, 3), np.uint8)
    picture[:] = (200, 40, 90)
    path = write_video(tmp_path / "film.mp4", [picture] * 3, codec_options={"crf": "1"})
    for frame in frames_of(path):
        assert np.abs(frame.pixels.astype(int) - (200, 40, 90)).max() <= 3


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_rotation_metadata_is_honoured(tmp_path: Path, rotation: int) -> None:
    """A film of a telephone held upright is stored lying down, with a note to turn it."""
    lying = grey(40)
    lying[:16, :16] = (250, 250, 250)
    frames = frames_of(write_video(tmp_path / "film.mp4", [lying] * 2, rotation=rotation))
    upright = np.rot90(lying, rotation // 90)
    assert frames[0].pixels.shape == upright.shape
    assert np.abs(frames[0].pixels.astype(int) - upright).mean() < 5


def test_odd_sizes_are_kept(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "odd.mkv", grey_ramp(3, height=47, width=63), codec="ffv1", pixel_format="bgr0"
    )
    assert [frame.pixels.shape for frame in frames_of(path)] == [(47, 63, 3)] * 3


def test_pictures_with_oblong_pixels_are_widened(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "wide.mp4", grey_ramp(2), codec_options={"x264-params": "sar=2/1"}
    )
    source = opened(path)
    assert source.facts.size == PictureSize(48, 128)
    source.close()


@pytest.mark.parametrize(
    "coding",
    [
        {"pixel_format": "yuv420p10le"},
        {"pixel_format": "yuv444p"},
        {"codec_options": {"x264-params": "tff=1"}},
        {"codec": "mpeg4"},
    ],
    ids=["ten bits", "full chroma", "interlaced", "mpeg4"],
)
def test_other_codings_are_read_too(tmp_path: Path, coding: dict[str, Any]) -> None:
    frames = frames_of(write_video(tmp_path / "film.mp4", grey_ramp(4), **coding))
    assert numbers_of(frames) == [0, 1, 2, 3]


def test_a_variable_rate_is_resampled_to_the_nearest_earlier_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mkv", grey_ramp(4), times_s=[0.0, 0.1, 0.5, 0.55])
    frames = frames_of(path, fps=10)
    assert [frame.pts_s for frame in frames] == pytest.approx([n / 10 for n in range(len(frames))])
    assert numbers_of(frames)[:6] == [0, 1, 1, 1, 1, 2]
    assert set(numbers_of(frames)[6:]) == {3}


@pytest.mark.parametrize(("fps", "expected"), [(5, [0, 2, 4]), (20, [0, 0, 1, 1, 2, 2, 3, 3])])
def test_a_constant_rate_is_halved_and_doubled(
    tmp_path: Path, fps: float, expected: list[int]
) -> None:
    path = write_video(tmp_path / "film.mp4", grey_ramp(6))
    source = opened(path, fps=fps)
    assert source.facts.fps == fps
    source.close()
    assert numbers_of(frames_of(path, fps=fps))[: len(expected)] == expected


def test_whole_milliseconds_of_matroska_lose_no_frame(tmp_path: Path) -> None:
    """At 30 frames/s its times are 33, 67, 100 ms: rounded up or down, each frame is seen once."""
    path = write_video(tmp_path / "film.mkv", grey_ramp(20), fps=30)
    assert numbers_of(frames_of(path, fps=30)) == list(range(20))


def test_a_film_is_played_again_with_times_that_go_on(tmp_path: Path) -> None:
    frames = frames_of(write_video(tmp_path / "film.mp4", grey_ramp(3)), plays=3)
    assert numbers_of(frames) == [0, 1, 2] * 3
    assert [frame.pts_s for frame in frames] == pytest.approx([n / 10 for n in range(9)])


def test_a_film_without_end_goes_on(tmp_path: Path) -> None:
    source = opened(write_video(tmp_path / "film.mp4", grey_ramp(2)), plays=None)
    frames = [source.read() for _ in range(9)]
    source.close()
    assert all(frame is not None for frame in frames)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_a_still_picture_is_one_frame_or_endlessly_the_same(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"still{ending}"
    assert cv2.imwrite(str(path), grey(70, height=33, width=21))
    (frame,) = frames_of(path)
    assert frame.pixels.shape == (33, 21, 3)
    assert number_of(frame.pixels) == 5
    endless = opened(path, fps=8, plays=None)
    frames = [endless.read() for _ in range(20)]
    endless.close()
    assert [f.pts_s for f in frames if f is not None] == pytest.approx([n / 8 for n in range(20)])
    assert len({id(f.pixels) for f in frames if f is not None}) == 1


def test_a_picture_of_one_pixel_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    cv2.imwrite(str(path), np.full((1, 1, 3), (1, 2, 3), np.uint8))
    (frame,) = frames_of(path)
    assert frame.pixels.tolist() == [[[3, 2, 1]]]


def test_a_picture_of_33_megapixels_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.zeros((4320, 7680, 3), np.uint8))
    (frame,) = frames_of(path)
    assert frame.pixels.shape == (4320, 7680, 3)


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mp4", grey_ramp(3))
    assert numbers_of(frames_of(film.rename(tmp_path / "film.txt"))) == [0, 1, 2]
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), grey(20))
    assert len(frames_of(still.rename(tmp_path / "still.mp4"))) == 1


@pytest.mark.parametrize("name", ["100%d.mp4", "concat:a|b.mp4", "http:film.mp4", "-film.mp4"])
def test_a_name_is_never_an_address_or_a_pattern(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "plain.mp4", grey_ramp(2)).rename(tmp_path / name)
    assert numbers_of(frames_of(tmp_path / name)) == [0, 1]


def test_a_film_that_was_cut_off_plays_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_video(
        tmp_path / "film.mp4",
        grey_ramp(20),
        codec_options={"g": "5", "bf": "0"},
        container_options=FRAGMENTED,
    ).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 8 // 10])
    with caplog.at_level(logging.WARNING):
        numbers = numbers_of(frames_of(path))
    assert 3 <= len(numbers) < 20
    assert numbers[:3] == [0, 1, 2]


def test_damage_in_the_middle_is_skipped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(
        tmp_path / "film.mkv", grey_ramp(20), codec="ffv1", codec_options={"slicecrc": "1"}
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = bytes(60)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        frames = frames_of(path)
    assert len(frames) >= 10


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    write_video(tmp_path / "holiday.mp4", grey_ramp(1))
    assert f"did you mean {tmp_path / 'holiday.mp4'}?" in refusal_of(tmp_path / "holyday.mp4")
    assert "check the name" in refusal_of(tmp_path / "qqqqqqq")
    assert "there is no folder" in refusal_of(tmp_path / "nowhere" / "film.mp4")


def test_a_folder_is_told(tmp_path: Path) -> None:
    assert "is a folder; name a file in it" in refusal_of(tmp_path)


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert "is empty (0 bytes)" in refusal_of(path)


def test_a_pipe_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    assert "is a pipe or a device" in refusal_of(path)
    os.close(writer)


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "list.m3u8"])
def test_what_is_no_film_is_told(tmp_path: Path, name: str) -> None:
    """Not even a playlist, which could name any other file."""
    write_video(tmp_path / "film.mp4", grey_ramp(1))
    path = tmp_path / name
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:5,\nfilm.mp4\n" * 40)
    assert "is neither a video nor a picture" in refusal_of(path)


def test_a_film_cut_off_before_its_first_picture_is_told(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "film.mp4", grey_ramp(3)).read_bytes()
    path = tmp_path / "cut.mp4"
    for num_bytes in (10, 100, len(whole) // 2):
        path.write_bytes(whole[:num_bytes])
        assert "complete" in refusal_of(path)


def test_a_sound_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    assert "has sound but no pictures" in refusal_of(path)


def test_a_missing_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: an administrator, as whom tests may run, may read everything."""

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert "no permission to read" in refusal_of(tmp_path / "film.mp4")


def test_a_change_of_size_in_the_middle_is_fitted_into_the_first(tmp_path: Path) -> None:
    """Two transport streams, one after the other, as recorders leave them."""
    parts: list[list[Pixels]] = [grey_ramp(3), [grey(200, height=64, width=64)] * 3]
    joined = tmp_path / "joined.ts"
    with joined.open("wb") as file:
        for number, part in enumerate(parts):
            film = write_video(tmp_path / f"{number}.ts", part, codec="mpeg2video")
            file.write(film.read_bytes())
    frames = frames_of(joined)
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3)}
    assert all(later.pts_s > earlier.pts_s for earlier, later in pairwise(frames))
