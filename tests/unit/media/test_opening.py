from __future__ import annotations

from pathlib import Path

import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import ConfigError, SourceError
from streamgen.media.opening import open_source
from streamgen.media.source import FrameSource
from streamgen.types import PictureSize
from tests.media_files import grey_ramp, write_video

SIZE = PictureSize(48, 64)


def source(spec: str, *, fps: float | None = None) -> FrameSource:
    return open_source(spec, clock=SimulatedClock(), size=SIZE, fps=fps)


def test_a_path_is_a_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", grey_ramp(2))
    film = source(str(path), fps=5)
    assert film.facts.fps == 5
    film.close()


def test_synthetic_pictures_have_the_size_and_rate_of_the_stream() -> None:
    endless = source("synthetic:")
    assert endless.facts.size == SIZE
    assert endless.facts.fps == 16
    three = source("Synthetic:3", fps=7)
    assert three.facts.fps == 7
    assert [three.read() is None for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "webcan:0",
            "-i webcan:0: there is no webcan:, known: synthetic:, webcam:",
        ),
        ("weird:film.mp4", "for a file of that name write ./weird:film.mp4"),
        ("", "-i is empty; known: synthetic:"),
        ("-", "-i - cannot be read; known: synthetic:"),
        ("synthetic:many", "synthetic:many is not a number of frames; write synthetic:48"),
        ("synthetic:0", "is not a number of frames"),
        ("synthetic:-1", "is not a number of frames"),
    ],
)
def test_a_source_that_says_nothing_known_is_told_in_one_line(spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_drive_letter_is_no_scheme() -> None:
    with pytest.raises(SourceError, match="there is no file"):
        source("C:film.mp4")
