from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import builds, integers, sampled_from

from streamgen.media import pixels as picture
from streamgen.media.pixels import Fit, Framing
from streamgen.media.sources.synthetic import moving_picture
from streamgen.types import PictureSize, Pixels

RED = (255, 0, 0)
sizes = builds(PictureSize, integers(1, 40), integers(1, 40))


def one_color(size: PictureSize, color: tuple[int, int, int]) -> Pixels:
    pixels = np.empty((size.height, size.width, 3), np.uint8)
    pixels[:] = color
    return pixels


@given(here=sizes, there=sizes, fit=sampled_from(Fit), turns=integers(-5, 5))
def test_any_picture_fits_into_any_size(
    here: PictureSize, there: PictureSize, fit: Fit, turns: int
) -> None:
    """Also odd sizes and single pixels; a picture of one colour keeps it, bars have theirs."""
    framing = Framing(there, fit, quarter_turns=turns, mirrored=True, bar_color=RED)
    fitted = framing.apply(one_color(here, (10, 20, 30)))
    assert picture.size_of(fitted) == there
    assert fitted.flags.c_contiguous
    colors = {tuple(color) for color in fitted.reshape(-1, 3).tolist()}
    assert colors <= {(10, 20, 30), RED}
    assert (10, 20, 30) in colors
    if fit is not Fit.LETTERBOX:
        assert RED not in colors


@given(size=sizes, fit=sampled_from(Fit))
def test_a_picture_that_fits_already_is_not_copied(size: PictureSize, fit: Fit) -> None:
    pixels = moving_picture(3, size)
    assert Framing(size, fit).apply(pixels) is pixels or np.shares_memory(
        Framing(size, fit).apply(pixels), pixels
    )


def test_crop_keeps_the_middle() -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    assert (picture.crop(wide, PictureSize(4, 4)) == 255).all()


def test_letterbox_shows_everything_between_equal_bars() -> None:
    fitted = picture.letterbox(one_color(PictureSize(4, 8), (9, 9, 9)), PictureSize(8, 8), RED)
    assert (fitted[2:6] == 9).all()
    assert (fitted[:2] == RED).all()
    assert (fitted[6:] == RED).all()


def test_stretch_keeps_the_corners() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0], pixels[1, 1] = (200, 0, 0), (0, 0, 200)
    fitted = picture.stretch(pixels, PictureSize(9, 31))
    assert fitted[0, 0, 0] > 150 > 50 > fitted[0, 0, 2]
    assert fitted[-1, -1, 2] > 150 > 50 > fitted[-1, -1, 0]


def test_shrinking_averages_so_that_a_checkerboard_becomes_grey() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    fitted = picture.stretch(np.stack([board] * 3, axis=-1), PictureSize(8, 8))
    assert np.abs(fitted.astype(int) - 128).max() <= 1


def test_one_quarter_turn_is_counter_clockwise_and_four_are_none() -> None:
    pixels = np.zeros((1, 2, 3), np.uint8)
    pixels[0, 1] = RED
    turned = picture.turn(pixels, 1)
    assert turned.shape == (2, 1, 3)
    assert tuple(turned[0, 0]) == RED
    assert picture.turn(pixels, 4) is pixels
    np.testing.assert_array_equal(picture.turn(turned, -1), pixels)


def test_a_mirror_swaps_left_and_right_and_twice_is_nothing() -> None:
    pixels = moving_picture(0, PictureSize(5, 7))
    np.testing.assert_array_equal(picture.mirror(pixels)[:, 0], pixels[:, -1])
    np.testing.assert_array_equal(picture.mirror(picture.mirror(pixels)), pixels)


@given(size=sizes)
def test_padding_to_even_adds_at_most_a_row_and_a_column(size: PictureSize) -> None:
    pixels = moving_picture(1, size)
    padded = picture.pad_to_even(pixels)
    assert padded.shape[0] % 2 == padded.shape[1] % 2 == 0
    np.testing.assert_array_equal(padded[: size.height, : size.width], pixels)
    assert max(padded.shape[0] - size.height, padded.shape[1] - size.width) <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_a_programming_error(wrong: Pixels) -> None:
    with pytest.raises(ValueError, match="a picture is uint8"):
        picture.size_of(wrong)
