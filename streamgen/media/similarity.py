"""Which clips of an input look as the one before, so that nobody needs to draw them.

StreamDiffusion's stochastic similarity filter (arXiv:2312.12491, sec. 3.4; cumulo-autumn
b623251, image_filter.py) with two defects mended: there the limit of skips came one too late, and
a picture that was kept by itself did not begin the count anew. And the draw is a function of
(seed, place in the stream), so that a stream repeats itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamgen.types import Clip, Pixels

THRESHOLD = 0.98  # cosine similarity above which skipping begins (StreamDiffusion's default)
MAX_SKIPS = 10  # clips in a row (StreamDiffusion's default)
MAX_VALUES = 1 << 16  # compared of a picture; a larger one is thinned out


class SimilarityFilter:
    """Says of one clip after the other whether it may be held; remembers the last that may not."""

    def __init__(
        self, *, seed: int, threshold: float = THRESHOLD, max_skips: int = MAX_SKIPS
    ) -> None:
        """`threshold` in [0, 1): the cosine from which on clips are skipped, ever more surely."""
        if not 0 <= threshold < 1 or max_skips < 1:
            raise ValueError(f"no filter has threshold {threshold} and max_skips {max_skips}")
        self._seed = seed
        self._threshold = threshold
        self._max_skips = max_skips
        self._kept: npt.NDArray[np.float32] | None = None
        self._num_skipped = 0
        self._num_seen = 0

    def is_still(self, clip: Clip) -> bool:
        """Whether the clip may be held: all its pictures look as the last of the kept clip."""
        self._num_seen += 1
        pictures = [_thinned(pixels) for pixels in clip.pixels]
        kept = self._kept
        if kept is not None and self._num_skipped < self._max_skips:
            cosine = min(_cosine(kept, picture) for picture in pictures)
            if self._draw() < 1 - (1 - cosine) / (1 - self._threshold):
                self._num_skipped += 1
                return True
        self._kept = pictures[-1]
        self._num_skipped = 0
        return False

    def _draw(self) -> float:
        """Uniform in [0, 1)."""
        return float(np.random.default_rng((self._seed, self._num_seen)).random())


def _thinned(pixels: Pixels) -> npt.NDArray[np.float32]:
    step = 1
    while pixels.size // (step * step) > MAX_VALUES:
        step += 1
    return pixels[::step, ::step].astype(np.float32).ravel()


def _cosine(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """1 for equal pictures, black ones included."""
    if np.array_equal(one, other):
        return 1.0
    scale = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / scale if scale else 0.0
