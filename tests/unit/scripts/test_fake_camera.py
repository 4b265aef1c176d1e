"""The film that a fake camera plays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fake_camera import read_number, scene, with_number, write_film
from streamgen.clock import SimulatedClock
from streamgen.media.opening import open_source
from streamgen.types import PictureSize

SIZE = PictureSize(96, 128)


@pytest.mark.parametrize("number", [0, 1, 64, 101, 127])
def test_a_number_is_read_back_also_from_a_small_and_blurred_picture(number: int):
    picture = with_number(scene(3, SIZE), number)
    assert read_number(picture) == number
    blurred = cv2.blur(cv2.resize(picture, (64, 48)), (3, 3))
    assert read_number(np.asarray(blurred, np.uint8)) == number


def test_a_damaged_number_is_told_from_a_whole_one():
    picture = with_number(scene(3, SIZE), 5)
    picture[:24, :16] = 255 - picture[:24, :16]
    assert read_number(picture) is None


def test_the_film_is_read_back_as_it_was_drawn(tmp_path: Path):
    write_film(tmp_path / "camera.y4m", SIZE, 5, has_numbers=True)
    source = open_source(str(tmp_path / "camera.y4m"), clock=SimulatedClock(), size=SIZE)
    numbers = []
    while (frame := source.read()) is not None:
        numbers.append(read_number(frame.pixels))
    source.close()
    assert numbers == [0, 1, 2, 3, 4]
