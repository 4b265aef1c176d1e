"""Which cameras there are, how one is named, and OpenCV's way to one (a film in its place)."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import ConfigError, SourceError
from streamgen.media.opening import open_source
from streamgen.media.sources import webcam
from streamgen.media.sources.steady import SteadySource
from streamgen.media.sources.webcam import Camera, OpenCvCamera, list_cameras, size_to_ask
from streamgen.types import PictureSize
from tests.media_files import grey_ramp, number_of, write_video

SIZE = PictureSize(128, 128)


def plug_in(folder: Path, number: int, name: str, *, node: int = 0) -> None:
    entry = folder / f"video{number}"
    entry.mkdir(parents=True)
    (entry / "name").write_text(f"{name}\n")
    (entry / "index").write_text(f"{node}\n")


def test_linux_cameras_are_listed_by_number_once_each(tmp_path: Path):
    assert list_cameras(tmp_path / "none") == []
    plug_in(tmp_path, 10, "Capture card")
    plug_in(tmp_path, 2, "HD Webcam")
    plug_in(tmp_path, 3, "HD Webcam", node=1)  # its metadata
    (tmp_path / "video9").mkdir()  # going away just now
    assert list_cameras(tmp_path) == [Camera(2, "HD Webcam"), Camera(10, "Capture card")]


def test_a_camera_is_found_by_number_path_and_part_of_its_name(monkeypatch: pytest.MonkeyPatch):
    cameras = [Camera(2, "HD Webcam"), Camera(10, "Capture card")]
    monkeypatch.setattr(webcam, "list_cameras", lambda: cameras)
    assert webcam.find_camera("") == 2
    assert webcam.find_camera("7") == 7
    assert webcam.find_camera("/dev/video7") == "/dev/video7"
    assert webcam.find_camera("card") == 10
    with pytest.raises(ConfigError, match=r"called 'Logi'; there are webcam:2 \(HD Webcam\), web"):
        webcam.find_camera("Logi")


def test_a_camera_is_asked_for_the_smallest_size_that_need_not_grow():
    assert size_to_ask(PictureSize(128, 128)) == PictureSize(480, 640)
    assert size_to_ask(PictureSize(480, 832)) == PictureSize(720, 1280)
    assert size_to_ask(PictureSize(2160, 3840)) == PictureSize(1080, 1920)


def test_a_camera_that_is_not_there_is_told_with_what_to_do():
    with pytest.raises(SourceError, match=r"no camera /dev/video97; no camera is plugged in; plug"):
        open_source("webcam:97", clock=SimulatedClock(), size=SIZE)


def test_what_cannot_be_opened_is_told_without_a_word_from_opencv(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    path = tmp_path / "video0"
    path.write_bytes(b"no camera")
    with pytest.raises(SourceError, match="cannot open webcam:"):
        OpenCvCamera(str(path), size=SIZE, fps=30)
    assert capfd.readouterr().err == ""


def test_opencv_gives_rgb_and_the_size_and_rate_that_it_was_granted(tmp_path: Path):
    film = write_video(tmp_path / "film.avi", grey_ramp(3), codec="mjpeg", pixel_format="yuvj420p")
    camera = OpenCvCamera(str(film), size=PictureSize(480, 640), fps=30)
    assert camera.facts.size == PictureSize(48, 64)
    assert camera.facts.fps == 30  # the film says 1000, its time base
    pictures = [camera.grab() for _ in range(4)]
    assert [None if one is None else number_of(one) for one in pictures] == [0, 1, 2, None]
    camera.close()


def test_opencv_opens_again_what_was_lost(tmp_path: Path):
    """A film of three pictures as a camera: at its end it counts as unplugged, then comes back."""
    film = write_video(tmp_path / "film.avi", grey_ramp(3), codec="mjpeg", pixel_format="yuvj420p")
    clock = SimulatedClock()
    source = SteadySource(
        lambda: OpenCvCamera(str(film), size=SIZE, fps=30),
        name="film",
        clock=clock,
        beside=lambda work: work(),
    )
    numbers = [number_of(source.read().pixels) for _ in range(25)]
    assert numbers[:3] == [0, 1, 2]
    assert numbers[3:6] == [2, 2, 2]
    assert 0 in numbers[6:]
    source.close()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("webcam:0,zoom=2", "webcam: knows no 'zoom'; after the comma it takes size=, fps="),
        ("webcam:0,size=big", "size=big is no size; write size=1280x720"),
        ("webcam:0,size=0x480", "size=0x480 is no size"),
        ("webcam:0,fps=0", "fps=0 is no rate; write fps=30"),
        ("webcam:0,fps=nan", "fps=nan is no rate"),
        ("webcam:0,", "webcam: knows no ''"),
        ("webcam:nobody", "no camera is called 'nobody'; no camera is plugged in"),
        ("screen:1,at=3", "at=3 is no place; write at=100x200"),
        ("synthetic:rainbow", "write synthetic:48, or synthetic:bars, synthetic:timecode"),
        ("rtsp:camera", "-i rtsp: needs an address; write rtsp://host/path"),
    ],
)
def test_a_wish_that_means_nothing_is_told_in_one_line(spec: str, words: str):
    with pytest.raises(ConfigError) as caught:
        open_source(spec, clock=SimulatedClock(), size=SIZE)
    assert words in str(caught.value)
