"""The model that gives every picture back."""

from __future__ import annotations

import numpy as np
import pytest

from streamgen import Host, Stream
from streamgen.clock import SimulatedClock
from streamgen.errors import CheckpointError
from streamgen.media.sources.synthetic import SyntheticSource, moving_picture
from streamgen.types import PictureSize

SIZE = PictureSize(32, 48)
SMALL = ("picture.height=32", "picture.width=48")


@pytest.mark.parametrize("num_frames", [1, 7])
def test_every_picture_comes_back_as_it_went_in(num_frames: int):
    """Pixels pass through [-1, 1] and back: 8 bits survive that exactly."""
    source = SyntheticSource(SIZE, fps=30, clock=SimulatedClock(), num_frames=num_frames)
    with Stream("identity-cpu", prompt="any", source=source, overrides=SMALL) as stream:
        frames = list(stream)
    expected = [moving_picture(index, SIZE) for index in range(num_frames)]
    assert np.array_equal([frame.pixels for frame in frames], expected)


def test_strength_puts_grain_on_the_picture():
    source = SyntheticSource(SIZE, fps=30, clock=SimulatedClock(), num_frames=1)
    with Stream(
        "identity-cpu", prompt="any", source=source, strength=0.5, overrides=SMALL
    ) as stream:
        (frame,) = list(stream)
    difference = np.abs(frame.pixels.astype(int) - moving_picture(0, SIZE))
    assert 5 < difference.mean() < 60


def test_no_weights_belong_to_it():
    with pytest.raises(CheckpointError, match="has no weights"):
        Host("identity-cpu", overrides=(*SMALL, "model.weights=film.safetensors"))
