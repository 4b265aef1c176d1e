from __future__ import annotations

import numpy as np
import pytest

from streamgen.media.similarity import MAX_SKIPS, SimilarityFilter
from streamgen.types import Clip


def clip(value: int, *, side: int = 32) -> Clip:
    """Four pictures alike, of noise that only `value` determines."""
    draw = np.random.default_rng(value)
    pixels = draw.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return Clip(np.repeat(pixels, 4, axis=0), 0.0, 0.0)


def test_a_still_input_is_drawn_once_in_so_many_clips_and_no_later() -> None:
    """The reference lets one skip more than its limit pass."""
    similarity = SimilarityFilter(seed=1)
    said = [similarity.is_still(clip(7)) for _ in range(3 * (MAX_SKIPS + 1))]
    assert said == ([False] + [True] * MAX_SKIPS) * 3


def test_a_clip_that_is_kept_by_itself_begins_the_count_anew() -> None:
    """The reference goes on counting over it, so that the next still stretch is cut short."""
    similarity = SimilarityFilter(seed=1)
    for _ in range(6):
        similarity.is_still(clip(7))
    assert not similarity.is_still(clip(8))
    assert all(similarity.is_still(clip(8)) for _ in range(MAX_SKIPS))
    assert not similarity.is_still(clip(8))


def test_another_picture_is_never_still() -> None:
    similarity = SimilarityFilter(seed=1)
    assert not any(similarity.is_still(clip(value)) for value in range(20))


def test_one_other_picture_inside_a_clip_is_seen() -> None:
    similarity = SimilarityFilter(seed=1)
    similarity.is_still(clip(7))
    mixed = clip(7)
    mixed.pixels[2] = clip(8).pixels[0]
    assert not similarity.is_still(mixed)


def test_black_pictures_are_alike() -> None:
    black = Clip(np.zeros((4, 8, 8, 3), np.uint8), 0.0, 0.0)
    similarity = SimilarityFilter(seed=1)
    assert [similarity.is_still(black) for _ in range(3)] == [False, True, True]


def test_the_same_seed_says_the_same() -> None:
    """Nearly still pictures are skipped by chance, and chance is a function of the seed."""

    def said(seed: int) -> list[bool]:
        similarity = SimilarityFilter(seed=seed)
        base = clip(7).pixels.astype(int)
        found: list[bool] = []
        for index in range(60):
            noise = np.random.default_rng(index).integers(-22, 23, base.shape)
            found.append(
                similarity.is_still(Clip((base + noise).clip(0, 255).astype(np.uint8), 0.0, 0.0))
            )
        return found

    assert said(1) == said(1)
    assert 0 < sum(said(1)) < 60
    assert said(1) != said(2)


@pytest.mark.parametrize(("threshold", "max_skips"), [(1.0, 10), (-0.1, 10), (0.9, 0)])
def test_an_impossible_filter_is_refused(threshold: float, max_skips: int) -> None:
    with pytest.raises(ValueError, match="no filter has"):
        SimilarityFilter(seed=0, threshold=threshold, max_skips=max_skips)
