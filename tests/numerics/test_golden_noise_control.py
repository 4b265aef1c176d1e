"""The motion controller against the published code's numbers (case C_noise_scale)."""

from itertools import pairwise

import pytest
import torch
from einops import rearrange

from streamgen.diffusion.motion import max_rms_difference
from streamgen.diffusion.noise_control import MotionNoiseController

FIRST_CHUNK_FRAMES = 5
CHUNK_FRAMES = 4


@pytest.fixture(scope="module")
def clips(golden_case):
    """The video's chunks, [T, C, H, W] each; the first one longer by a frame."""
    frames_TCHW = rearrange(golden_case("C_noise_scale")[0]["video"], "1 c t h w -> t c h w")
    first, rest = frames_TCHW[:FIRST_CHUNK_FRAMES], frames_TCHW[FIRST_CHUNK_FRAMES:]
    return [first, *torch.split(rest, CHUNK_FRAMES)]


@pytest.fixture(scope="module")
def meta(golden_case):
    return golden_case("C_noise_scale")[1]


def test_motion_equals_the_reference(clips, meta):
    motions = [max_rms_difference(before[-1], clip) for before, clip in pairwise(clips)]
    assert motions == pytest.approx(meta["max_rms_frame_diff"], abs=1e-6)


@pytest.mark.parametrize("initial", ["0.5", "0.7", "0.8"])
def test_scales_and_told_timesteps_equal_the_reference(clips, meta, initial):
    controller = MotionNoiseController(float(initial), first_timestep=700.0)
    levels = [controller.next(clip) for clip in clips]
    expected = meta["results"][f"init_{initial}"]

    assert levels[0].scale == float(initial)
    assert levels[0].timestep == 700.0
    assert [level.scale for level in levels[1:]] == pytest.approx(
        [call["noise_scale"] for call in expected], abs=1e-6
    )
    assert [level.timestep for level in levels[1:]] == [call["current_step"] for call in expected]
