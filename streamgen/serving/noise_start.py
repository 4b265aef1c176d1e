"""Where on the ladder video-to-video begins, and what says so while it runs."""

from __future__ import annotations

from streamgen.diffusion.noise_control import (
    MOTION_NOISE_RANGE,
    FixedNoiseController,
    MotionNoiseController,
    NoiseController,
    RobustNoiseController,
    SceneNoiseController,
    StartLevel,
)
from streamgen.diffusion.schedule import Ladder
from streamgen.errors import ConfigError

TIMESTEPS_PER_SIGMA = 1000  # a fixed start level is told as it is


def noise_controller(kind: str, start_sigma: float, ladder: Ladder) -> NoiseController:
    """The controller of `noise_control.kind` for a start at a noise level in (0, 1].

    Raises ConfigError if the ladder's second level, or what motion takes away, lies above it.
    """
    lowest = ladder.timesteps[1] if ladder.num_steps > 1 else 0.0
    told = start_sigma * TIMESTEPS_PER_SIGMA
    if told <= lowest:
        raise ConfigError(
            f"a start at noise level {start_sigma:g} lies below the second level of the ladder, "
            f"{lowest / TIMESTEPS_PER_SIGMA:.3g}; raise strength or noise_control.start_sigma, or "
            f"use fewer steps"
        )
    if kind in ("motion", "robust"):
        if start_sigma <= MOTION_NOISE_RANGE:
            raise ConfigError(
                f"motion takes {MOTION_NOISE_RANGE:g} of noise away and noise_control.start_sigma "
                f'is {start_sigma:g}; raise it or set noise_control.kind = "fixed"'
            )
        controller = RobustNoiseController if kind == "robust" else MotionNoiseController
        return controller(start_sigma, first_timestep=ladder.timesteps[0], lowest_timestep=lowest)
    fixed = SceneNoiseController if kind == "scenes" else FixedNoiseController
    return fixed(StartLevel(start_sigma, told))
