"""Classifier-free guidance at the price of few or no extra passes: R-CFG for flow matching.

Guidance moves a prediction away from what the model would paint under a negative (or empty) prompt:

    v = v_n + g * (v_c - v_n)                                    (Ho & Salimans, arXiv:2207.12598)

Computing v_n doubles the passes. Residual guidance (StreamDiffusion, arXiv:2312.12491, sec. 3.2)
assumes instead where the negative path ends, in clean latents z, and computes the noise that would
lead there. On the path x_sigma = (1 - sigma) x_0 + sigma noise, whose velocity is noise - x_0, that
is noise_n = (x_sigma - (1 - sigma) z) / sigma, hence

    v_n = noise_n - z = (x_sigma - z) / sigma

Since x_0 = x_sigma - sigma v is linear in v, guidance of velocities is guidance of clean latents:
x_0 = z + g (x_0c - z) at delta 1, which is also what guidance of noises gives.

Pure functions of tensors. Knows no model and no session: who owns the endpoint z of a chunk in
flight stores it beside its latents.
"""

# B rows, F latent frames, C channels, H W latent height and width

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from streamgen.diffusion.flow import clean_to_velocity
from streamgen.errors import ConfigError


class GuidanceMode(StrEnum):
    """Where the negative velocity comes from; names as in StreamDiffusion's `cfg_type`."""

    NONE = "none"  # there is none: the conditional velocity is the result
    SELF = "self"  # z is the clean input of video-to-video; no extra pass
    INITIALIZE = "initialize"  # z is what a real negative pass predicts at step 0; one extra pass
    FULL = "full"  # a real negative pass at every step


@dataclass(frozen=True, slots=True)
class Guidance:
    """Mode, strength and the moderation of the assumed negative velocity.

    `scale` is gamma of arXiv:2312.12491 (g above); 1 gives the conditional velocity, bit for bit,
    in every mode, and then no negative pass is needed. `delta` is the paper's delta, which scales
    the virtual residual noise:

        paper   noise = delta * noise_n + gamma * (noise_c - delta * noise_n)
        here    v     = delta * v_n     + gamma * (v_c     - delta * v_n)

    Equal at delta 1. Otherwise delta acts on velocities here: since delta * v_n =
    (x_sigma - z_delta) / sigma with z_delta = (1 - delta) x_sigma + delta z, it slides the assumed
    endpoint from the noisy latents themselves (delta 0) to z (delta 1). Below 1 it weakens the push
    away from z. It applies to the assumed velocities of `self` and `initialize`, at every step, and
    not to the real ones of `full`.

    Raises ConfigError for a combination that could not take effect.
    """

    mode: GuidanceMode = GuidanceMode.NONE
    scale: float = 1.0
    delta: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ConfigError(f"guidance scale must be a number from 0 up, not {self.scale}")
        if not (math.isfinite(self.delta) and self.delta >= 0):
            raise ConfigError(f"guidance delta must be a number from 0 up, not {self.delta}")
        if self.mode is GuidanceMode.NONE and self.scale != 1:
            raise ConfigError(
                f"guidance mode none cannot apply scale {self.scale:g}; "
                f"set scale 1 or a mode of self, initialize, full"
            )
        if not self._assumes_endpoint and self.delta != 1:
            raise ConfigError(
                f"guidance delta {self.delta:g} has no effect in mode {self.mode}; "
                f"set delta 1 or a mode of self, initialize"
            )

    @property
    def is_active(self) -> bool:
        """Whether the result can differ from the conditional velocity."""
        return self.mode is not GuidanceMode.NONE and self.scale != 1

    @property
    def _assumes_endpoint(self) -> bool:
        return self.mode in (GuidanceMode.SELF, GuidanceMode.INITIALIZE)

    def needs_negative_pass(self, step: int) -> bool:
        """Whether step `step` of a chunk needs a row with the negative prompt beside its own.

        In mode `initialize` the clean latents that the row of step 0 predicts (`velocity_to_clean`)
        are the endpoint of all steps of this chunk.
        """
        if not self.is_active:
            return False
        return self.mode is GuidanceMode.FULL or (
            self.mode is GuidanceMode.INITIALIZE and step == 0
        )

    def needs_endpoint(self, step: int) -> bool:
        """Whether step `step` computes its negative velocity from an endpoint kept for the chunk.

        Where neither this nor `needs_negative_pass` holds, the step is not guided.
        """
        return self.is_active and self._assumes_endpoint and not self.needs_negative_pass(step)

    def combine(self, cond_BFCHW: Tensor, negative_BFCHW: Tensor) -> Tensor:
        """The guided velocity, computed in float32; dtype of the conditional one.

        `negative_BFCHW` is real or from `negative_velocity`; delta is applied here.
        """
        if not self.is_active:
            return cond_BFCHW
        delta = self.delta if self._assumes_endpoint else 1.0
        residual_BFCHW = delta * negative_BFCHW.to(torch.float32)
        guided_BFCHW = residual_BFCHW + self.scale * (cond_BFCHW.float() - residual_BFCHW)
        return guided_BFCHW.to(cond_BFCHW.dtype)


def negative_velocity(noisy_BFCHW: Tensor, endpoint_BFCHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The velocity of a negative path that ends at z = endpoint: (x_sigma - z) / sigma.

    sigma in (0, 1]; in float64, result in the endpoint's dtype. Raises ValueError if sigma_B does
    not have one entry a row.
    """
    return clean_to_velocity(noisy_BFCHW, endpoint_BFCHW, sigma_B)


def check_mode_fits_input(mode: GuidanceMode, *, has_input: bool) -> None:
    """Raises ConfigError for mode `self` without an input video, whose latents are its endpoint."""
    if mode is GuidanceMode.SELF and not has_input:
        raise ConfigError(
            "guidance mode self needs an input video and text-to-video has none; "
            "set guidance mode initialize, full or none"
        )
