"""The measure of motion: what it sees and what it refuses."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats

from streamgen.diffusion.motion import MOTION_FULL_SCALE, max_rms_difference, motion_ratio

STILL_TCHW = torch.zeros(4, 3, 6, 8)


def test_a_still_picture_has_no_motion():
    assert max_rms_difference(STILL_TCHW[0], STILL_TCHW) == 0


@given(jump=floats(0, 2, width=32))
def test_a_uniform_jump_is_its_own_height(jump):
    """Also between the previous chunk's last frame and the first new one; float32 tolerance."""
    assert max_rms_difference(STILL_TCHW[0] - jump, STILL_TCHW) == pytest.approx(jump, rel=1e-5)
    late = STILL_TCHW.clone()
    late[3] += jump
    assert max_rms_difference(STILL_TCHW[0], late) == pytest.approx(jump, rel=1e-5)


def test_the_largest_of_several_jumps_counts():
    pixels = STILL_TCHW.clone()
    pixels[1] += 0.1
    pixels[2] += 0.5
    pixels[3] += 0.5
    assert max_rms_difference(STILL_TCHW[0], pixels) == pytest.approx(0.4, rel=1e-5)


def test_the_ratio_saturates():
    assert motion_ratio(0.0) == 0
    assert motion_ratio(MOTION_FULL_SCALE / 2) == pytest.approx(0.5)
    assert motion_ratio(1.7) == 1


def test_frames_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="not of the shape"):
        max_rms_difference(torch.zeros(3, 6, 9), STILL_TCHW)
    with pytest.raises(ValueError, match="pixels need shape"):
        max_rms_difference(STILL_TCHW[0], STILL_TCHW[:0])
