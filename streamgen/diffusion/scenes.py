"""What happens in an input video: how much moves, light left aside, and where a new scene begins.

Two frames of one scene differ by motion and by light. Light is fitted as a gain and an offset of
each colour and taken off, so that a lamp or a camera's automatic exposure counts as no motion. A
cut leaves neither shapes nor colours alike. Works on host frames before they are encoded.
"""

# T pixel frames, C colours, H W height and width in pixels, S side of a thumbnail

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

THUMBNAIL = 32  # pixels a side: shapes are left, grain and small movements are not
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, sec. 2.5.1
MAX_SHIFT = 8  # pixels of the thumbnail by which a pan may have moved the picture
SHIFT_STEP = 2
SATURATED = 0.95  # beyond it, pixels in [-1, 1] are clipped and say nothing about light
MIN_CONTRAST = 0.04  # standard deviation of luma below which there are no shapes to compare
# With these two, 29 of 30 splices between six real clips at 16 frames/s are found, and in their 356
# frames the two cuts that are there and no other (benchmarks/noise-control.json).
SAME_SHAPES = 0.5  # correlation of luma, at the best shift, from which on it is one scene
SAME_COLOURS = 0.15  # share of pixels in other colour bins up to which it is one scene
COLOUR_BINS = 6  # a colour


@dataclass(frozen=True, slots=True)
class SceneReading:
    """What was seen in the frames of one chunk."""

    rms_motion: float
    """Largest RMS difference of neighbours without their light and without cuts, in [0, 2]."""
    cut: int | None
    """The first frame of the chunk's last new scene; None: no scene begins in it."""


class SceneWatch:
    """Looks at one stream's frames, a chunk at a time, in order. Owns the frames to compare with.

    A fade is no cut, nor is a flash or a moment of black: what comes after is compared with the
    last frame that had shapes.
    """

    def __init__(self) -> None:
        self._last_CHW: Tensor | None = None
        self._shaped_CSS: Tensor | None = None  # thumbnail of the last frame with shapes

    def look(self, pixels_TCHW: Tensor) -> SceneReading:
        """Pixels in [-1, 1]. Raises ValueError if the frames change their shape."""
        previous_CHW, self._last_CHW = self._last_CHW, pixels_TCHW[-1].clone()
        if previous_CHW is None:
            previous_CHW = pixels_TCHW[0]
        if previous_CHW.shape != pixels_TCHW.shape[1:]:
            raise ValueError(
                f"the previous frame {tuple(previous_CHW.shape)} is not of the shape of the new "
                f"ones {tuple(pixels_TCHW.shape[1:])}"
            )
        frames_TCHW = torch.cat([previous_CHW[None], pixels_TCHW]).float()
        thumbs_TCSS = adaptive_avg_pool2d(frames_TCHW, THUMBNAIL)
        if self._shaped_CSS is None:
            self._shaped_CSS = thumbs_TCSS[0]
        motion, cut = 0.0, None
        for index in range(1, len(frames_TCHW)):
            thumb_CSS = thumbs_TCSS[index]
            if is_new_scene(self._shaped_CSS, thumb_CSS):
                motion, cut = 0.0, index - 1
            else:
                lit_CHW = relit(frames_TCHW[index - 1], thumbs_TCSS[index - 1], thumb_CSS)
                rms = (frames_TCHW[index] - lit_CHW).square().mean().sqrt()
                motion = max(motion, float(rms))
            if _has_shapes(thumb_CSS) or not _has_shapes(self._shaped_CSS):
                self._shaped_CSS = thumb_CSS
        return SceneReading(motion, cut)


def relit(frame_CHW: Tensor, thumb_CSS: Tensor, next_CSS: Tensor) -> Tensor:
    """A frame in the light of the next one: gain and offset of each colour by least squares.

    Fitted on thumbnails, where clipped pixels are left out if enough others remain.
    """
    lit = [
        _in_light_of(frame_HW, thumb_SS, next_SS)
        for frame_HW, thumb_SS, next_SS in zip(frame_CHW, thumb_CSS, next_CSS, strict=True)
    ]
    return torch.stack(lit)


def is_new_scene(before_CSS: Tensor, after_CSS: Tensor) -> bool:
    """Whether two thumbnails share neither shapes, however shifted or lit, nor colours."""
    if not (_has_shapes(before_CSS) and _has_shapes(after_CSS)):
        return False
    before_SS, after_SS = _luma(before_CSS), _luma(after_CSS)
    if _correlation(before_SS, after_SS) >= SAME_SHAPES:
        return False
    if _colour_distance(before_CSS, after_CSS) <= SAME_COLOURS:
        return False
    shifts = range(-MAX_SHIFT, MAX_SHIFT + 1, SHIFT_STEP)
    return not any(
        _correlation(*_overlap(before_SS, after_SS, down, right)) >= SAME_SHAPES
        for down, right in itertools.product(shifts, shifts)
    )


def _in_light_of(frame_HW: Tensor, thumb_SS: Tensor, next_SS: Tensor) -> Tensor:
    is_usable = (thumb_SS.abs() < SATURATED) & (next_SS.abs() < SATURATED)
    if int(is_usable.sum()) < thumb_SS.numel() // 4:
        is_usable = torch.ones_like(is_usable)
    before, after = thumb_SS[is_usable], next_SS[is_usable]
    variance = float(before.var(unbiased=False))
    if variance < MIN_CONTRAST**2:
        return frame_HW + (after.mean() - before.mean())
    gain = float(((before - before.mean()) * (after - after.mean())).mean()) / variance
    offset = float(after.mean()) - gain * float(before.mean())
    return (gain * frame_HW + offset).clamp(-1, 1)


def _luma(pixels_CSS: Tensor) -> Tensor:
    return torch.einsum("c,chw->hw", pixels_CSS.new_tensor(LUMA), pixels_CSS)


def _has_shapes(thumb_CSS: Tensor) -> bool:
    return float(_luma(thumb_CSS).std()) >= MIN_CONTRAST


def _correlation(one_HW: Tensor, two_HW: Tensor) -> float:
    one_HW, two_HW = one_HW - one_HW.mean(), two_HW - two_HW.mean()
    norm = float((one_HW.square().sum() * two_HW.square().sum()).sqrt())
    return float((one_HW * two_HW).sum()) / norm if norm > 1e-9 else 0.0


def _overlap(one_SS: Tensor, two_SS: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """What both show if the second has moved by so many pixels."""

    def part(length: int, shift: int) -> slice:
        return slice(max(0, shift), length + min(0, shift))

    height, width = one_SS.shape
    return (
        one_SS[part(height, -down), part(width, -right)],
        two_SS[part(height, down), part(width, right)],
    )


def _colour_distance(one_CSS: Tensor, two_CSS: Tensor) -> float:
    """Share of pixels that are in other colour bins: 0 for the same colours, 1 for none shared."""
    bins = [
        ((pixels_CSS + 1) / 2 * COLOUR_BINS).long().clamp(0, COLOUR_BINS - 1)
        for pixels_CSS in (one_CSS, two_CSS)
    ]
    counts = [
        torch.bincount(
            ((red * COLOUR_BINS + green) * COLOUR_BINS + blue).flatten(), minlength=COLOUR_BINS**3
        )
        for red, green, blue in bins
    ]
    return 1 - int(torch.minimum(*counts).sum()) / one_CSS[0].numel()
