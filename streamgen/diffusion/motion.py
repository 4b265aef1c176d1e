"""How much a picture moves: the measure that decides how much noise its next chunk gets.

Pure, on host frames before they are encoded. Knows nothing of noise.
"""

# T pixel frames, C colours, H W height and width in pixels

from __future__ import annotations

import torch
from torch import Tensor

# RMS frame difference, pixels in [-1, 1], at which motion counts as full
# (sigma of arXiv:2511.07399; StreamDiffusionV2 c5a0f20, streamv2v/inference.py,
# compute_noise_scale_and_step)
MOTION_FULL_SCALE = 0.2


def max_rms_difference(previous_CHW: Tensor, pixels_TCHW: Tensor) -> float:
    """The largest RMS difference between neighbouring frames; pixels and result in pixel units.

    max over t of sqrt(mean over C, H, W of (x_t - x_{t-1})^2), with x_{-1} = `previous_CHW`, the
    last frame of the chunk before. Pixels lie in [-1, 1], so the result lies in [0, 2]. Computed
    in float32. Raises ValueError if the frames are of another shape or there are none.
    """
    if pixels_TCHW.ndim != 4 or pixels_TCHW.shape[0] == 0:
        raise ValueError(f"pixels need shape [T, C, H, W], T > 0, not {tuple(pixels_TCHW.shape)}")
    if previous_CHW.shape != pixels_TCHW.shape[1:]:
        raise ValueError(
            f"the previous frame {tuple(previous_CHW.shape)} is not of the shape of the new ones "
            f"{tuple(pixels_TCHW.shape[1:])}"
        )
    frames_TCHW = torch.cat([previous_CHW[None], pixels_TCHW]).float()
    squared_TCHW = frames_TCHW.diff(dim=0).square()
    return float(squared_TCHW.mean(dim=(1, 2, 3)).sqrt().max())


def motion_ratio(rms_difference: float) -> float:
    """Motion from 0 (still) to 1 (full), of an RMS frame difference of pixels in [-1, 1].

    Divides and clamps in float32, as the reference does, so that truncated timesteps agree.
    """
    return float((torch.tensor(rms_difference) / MOTION_FULL_SCALE).clamp(0, 1))
