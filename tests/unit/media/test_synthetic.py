from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers

from streamgen.clock import SimulatedClock
from streamgen.media.opening import open_source
from streamgen.media.sources.synthetic import CODE_BITS, PATTERNS, read_time_code, time_code
from streamgen.types import PictureSize


@given(index=integers(0, 2**20), height=integers(1, 60), width=integers(CODE_BITS, 300))
def test_a_time_code_says_its_number(index: int, height: int, width: int):
    pixels = time_code(index, PictureSize(height, width))
    assert read_time_code(pixels) == index % 2**CODE_BITS


@given(index=integers(0, 2**CODE_BITS - 1))
def test_a_time_code_survives_resizing_and_compression(index: int):
    pixels = time_code(index, PictureSize(480, 640))
    small = cv2.resize(pixels, (128, 96), interpolation=cv2.INTER_AREA)
    packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    assert read_time_code(np.asarray(cv2.imdecode(packed, 1), np.uint8)) == index


@pytest.mark.parametrize("name", PATTERNS)
def test_a_test_picture_is_named_after_the_colon_and_moves(name: str):
    size = PictureSize(47, 65)
    source = open_source(f"synthetic:{name}", clock=SimulatedClock(), size=size, fps=10)
    first, second = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert first.pixels.shape == (47, 65, 3)
    assert not source.facts.is_live
    assert not all(np.array_equal(first.pixels, PATTERNS[name](index, size)) for index in range(10))
