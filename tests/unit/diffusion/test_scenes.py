"""What counts as motion, as light and as a new scene, on pictures of smooth random shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats
from torch import Tensor
from torch.nn.functional import interpolate

from streamgen.diffusion.motion import max_rms_difference
from streamgen.diffusion.noise_control import (
    MotionNoiseController,
    RobustNoiseController,
    SceneBeginnings,
    SceneNoiseController,
    StartLevel,
)
from streamgen.diffusion.scenes import SceneWatch

SIZE, CLIP = 64, 4


def scene(number: int) -> Tensor:
    """A picture [C, H, W] in [-0.8, 0.8]: others for other numbers, in shapes and in colours."""
    random = torch.Generator().manual_seed(number)
    coarse = torch.rand((1, 3, 6, 6), generator=random) * 2 - 1
    tint = torch.rand((1, 3, 1, 1), generator=random) * 2 - 1
    smooth = interpolate(coarse, size=(SIZE, SIZE), mode="bicubic")[0]
    return (0.5 * smooth + 0.4 * tint[0]).clamp(-0.8, 0.8)


def still(number: int, num_frames: int = CLIP) -> Tensor:
    return scene(number).expand(num_frames, -1, -1, -1)


def panned(number: int, pixels_a_frame: int) -> Tensor:
    frames = [scene(number).roll(pixels_a_frame * index, dims=2) for index in range(CLIP)]
    return torch.stack(frames)


def beginnings(clips: list[Tensor]) -> list[bool]:
    scenes = SceneBeginnings()
    return [scenes.look(clip)[1] for clip in clips]


@given(gain=floats(0.6, 1.2), offset=floats(-0.15, 0.15))
def test_a_change_of_light_is_no_motion_and_no_cut(gain: float, offset: float):
    watch = SceneWatch()
    watch.look(still(1))
    lit = torch.stack([scene(1), *[(gain * scene(1) + offset).clamp(-1, 1)] * 3])
    reading = watch.look(lit)
    assert reading.cut is None
    assert reading.rms_motion < 0.02


def test_without_a_change_of_light_motion_is_that_of_the_published_measure():
    """To a tenth: a fit of gain and offset also takes a little off what has moved."""
    clip = panned(2, 1)
    published = max_rms_difference(clip[0], clip)
    assert SceneWatch().look(clip).rms_motion == pytest.approx(published, rel=0.1)


def test_cuts_are_seen_where_they_are_and_their_jump_is_no_motion():
    """Of 30 pairs of random pictures; some are alike by chance, as blurred as they are."""
    num_seen = 0
    for number in range(2, 32):
        watch = SceneWatch()
        watch.look(still(1))
        reading = watch.look(torch.cat([still(1, 1), still(number, 3)]))
        if reading.cut is not None:
            num_seen += 1
            assert reading.cut == 1
            assert reading.rms_motion < 1e-6
    assert num_seen >= 25


@pytest.mark.parametrize("pixels_a_frame", [1, 4, 8])
def test_a_pan_is_no_cut(pixels_a_frame: int):
    watch = SceneWatch()
    watch.look(still(3))
    assert watch.look(panned(3, pixels_a_frame)).cut is None


def test_a_flash_and_a_moment_of_black_are_no_cut_but_a_scene_after_black_is_one():
    black, white = torch.full((1, 3, SIZE, SIZE), -1.0), torch.ones(1, 3, SIZE, SIZE)
    flash = torch.cat([still(4, 1), white, still(4, 2)])
    gap = torch.cat([still(4, 1), black, black, still(4, 1)])
    into_another = torch.cat([still(4, 1), black, still(5, 2)])
    watch = SceneWatch()
    assert [watch.look(clip).cut for clip in (flash, gap, into_another)] == [None, None, 2]


def test_a_scene_begins_with_the_first_chunk_that_shows_nothing_else():
    mixed = torch.cat([still(6, 2), still(7, 2)])
    assert beginnings([still(6), mixed, still(7), still(7)]) == [False, False, True, False]
    assert beginnings([still(6), still(7), still(7)]) == [False, True, False]
    twice = torch.cat([still(7, 2), still(8, 2)])
    assert beginnings([still(6), mixed, twice, still(8)]) == [False, False, False, True]


def test_the_robust_controller_begins_anew_at_a_cut_and_otherwise_agrees_with_the_published_one():
    clips = [still(9), panned(9, 2), panned(9, 2), still(2), panned(2, 2)]
    robust = RobustNoiseController(0.8, first_timestep=700)
    published = MotionNoiseController(0.8, first_timestep=700)
    ours, theirs = [robust.next(clip) for clip in clips], [published.next(clip) for clip in clips]
    assert ours[3] == StartLevel(0.8, 700, begins_scene=True)
    assert [level.begins_scene for level in ours] == [False, False, False, True, False]
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        assert one.scale == pytest.approx(other.scale, abs=0.02)
    assert theirs[3].scale < 0.72 < 0.79 < ours[3].scale


def test_light_alone_moves_the_published_controller_and_not_the_robust_one():
    dark, bright = 0.6 * scene(3) - 0.1, 1.2 * scene(3) + 0.2
    clip = torch.stack([dark, bright, dark, bright]).clamp(-1, 1)
    robust = RobustNoiseController(0.8, first_timestep=700)
    published = MotionNoiseController(0.8, first_timestep=700)
    for _ in range(2):
        ours, theirs = robust.next(clip), published.next(clip)
    assert ours.scale > 0.785
    assert theirs.scale < 0.74


def test_the_level_of_scenes_is_fixed():
    controller = SceneNoiseController(StartLevel(0.6, 500))
    levels = [controller.next(clip) for clip in (still(1), still(2), still(2))]
    assert levels == [StartLevel(0.6, 500), StartLevel(0.6, 500, True), StartLevel(0.6, 500)]


def test_frames_of_another_size_are_refused():
    watch = SceneWatch()
    watch.look(still(1))
    with pytest.raises(ValueError, match="is not of the shape"):
        watch.look(torch.zeros(1, 3, 8, 8))
