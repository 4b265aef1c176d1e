"""How noisy a video-to-video chunk starts: fixed, or less where the input moves.

Noise hides the input. A still scene stands much of it and gains style; in a moving one too much
noise loses the motion, so the controller lowers it. Works on host frames before they are encoded.
Knows neither latents nor the rest of the ladder.
"""

# T pixel frames, C colours, H W height and width in pixels

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from streamgen.diffusion.motion import max_rms_difference, motion_ratio
from streamgen.diffusion.scenes import SceneReading, SceneWatch
from streamgen.diffusion.schedule import TIMESTEP_MAX

# StreamDiffusionV2 c5a0f20, streamv2v/inference.py, compute_noise_scale_and_step; in the notation
# of arXiv:2511.07399 the first three are s_max - s_min, lambda and 1 - lambda.
MOTION_NOISE_RANGE = 0.1  # noise scale that full motion takes away
MOTION_NOISE_UPDATE = 0.9  # weight of the new scale in the running one, per chunk
MOTION_NOISE_MEMORY = 0.1  # weight of the previous scale (1 - 0.9 is another float)
TOLD_TIMESTEP_OFFSET = 100  # the model is told so much less, in timesteps of [0, 1000]


@dataclass(frozen=True, slots=True)
class StartLevel:
    """`scale` in [0, 1] is the share of noise, `timestep` in [0, 1000] what the model is told.

    `begins_scene`: nothing of the stream before it belongs to the chunk's scene.
    """

    scale: float
    timestep: float
    begins_scene: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 1:
            raise ValueError(f"noise scale must lie in [0, 1], not {self.scale}")
        if not 0 <= self.timestep <= TIMESTEP_MAX:
            raise ValueError(f"timestep must lie in [0, 1000], not {self.timestep}")


class NoiseController(Protocol):
    def next(self, pixels_TCHW: Tensor) -> StartLevel:
        """The level at which the chunk of these frames starts; pixels in [-1, 1].

        Called once for each chunk of a session, in order.
        """
        ...


class FixedNoiseController:
    """Every chunk starts at the same level."""

    def __init__(self, level: StartLevel) -> None:
        self._level = level

    def next(self, pixels_TCHW: Tensor) -> StartLevel:
        return self._level


class SceneBeginnings:
    """Which chunk is the first with nothing but a new scene in it. Owns what was seen before."""

    def __init__(self) -> None:
        self._watch = SceneWatch()
        self._is_due = False  # the chunk before had the cut in its midst

    def look(self, pixels_TCHW: Tensor) -> tuple[SceneReading, bool]:
        """What is seen in the next chunk, and whether its scene begins with it."""
        reading = self._watch.look(pixels_TCHW)
        begins = reading.cut == 0 or (self._is_due and reading.cut is None)
        self._is_due = reading.cut is not None and reading.cut > 0
        return reading, begins


class SceneNoiseController:
    """Every chunk starts at the same level; those that begin a scene say so."""

    def __init__(self, level: StartLevel) -> None:
        self._level = level
        self._scenes = SceneBeginnings()

    def next(self, pixels_TCHW: Tensor) -> StartLevel:
        _, begins = self._scenes.look(pixels_TCHW)
        return replace(self._level, begins_scene=begins)


class MotionNoiseController:
    """Less noise for moving input, smoothed over chunks.

    s = 0.9 * (s_initial - 0.1 * clamp(d / 0.2, 0, 1)) + 0.1 * s_previous
    timestep = int(1000 * s) - 100

    with d the largest RMS difference of neighbouring frames (arXiv:2511.07399, motion-aware noise
    controller; StreamDiffusionV2 c5a0f20, streamv2v/inference.py). The first chunk has no motion
    yet: it starts at s_initial and is told `first_timestep`, there the ladder's first.

    Owns the previous scale and the last frame of one session; another stream takes another object.
    """

    def __init__(
        self, initial_scale: float, *, first_timestep: float, lowest_timestep: float = 0.0
    ) -> None:
        """`lowest_timestep` bounds from below what the model is told: with several steps, give the
        ladder's second timestep, since a first one below it would run the ladder backwards.

        Raises ValueError if `initial_scale` is not in [0, 1] or the timesteps are not in order,
        0 <= lowest <= first <= 1000.
        """
        if not 0 <= lowest_timestep <= first_timestep <= TIMESTEP_MAX:
            raise ValueError(
                f"timesteps must hold 0 <= lowest <= first <= 1000, "
                f"not lowest {lowest_timestep}, first {first_timestep}"
            )
        if not 0 <= initial_scale <= 1:
            raise ValueError(f"noise scale must lie in [0, 1], not {initial_scale}")
        self._initial_scale = initial_scale
        self._first_timestep = first_timestep
        self._lowest_timestep = lowest_timestep
        self._scale = initial_scale
        self._last_CHW: Tensor | None = None

    def next(self, pixels_TCHW: Tensor) -> StartLevel:
        """See NoiseController. Raises ValueError if the frames change their shape."""
        previous_CHW, self._last_CHW = self._last_CHW, pixels_TCHW[-1].clone()
        if previous_CHW is None:
            return self._first()
        return self._moved(max_rms_difference(previous_CHW, pixels_TCHW))

    def _first(self) -> StartLevel:
        """The level of a chunk with nothing before it."""
        self._scale = self._initial_scale
        return StartLevel(self._scale, self._first_timestep)

    def _moved(self, rms_difference: float) -> StartLevel:
        """The level of a chunk in which so much moves."""
        motion = motion_ratio(rms_difference)
        target = self._initial_scale - MOTION_NOISE_RANGE * motion
        self._scale = target * MOTION_NOISE_UPDATE + self._scale * MOTION_NOISE_MEMORY
        told = int(1000 * self._scale) - TOLD_TIMESTEP_OFFSET
        return StartLevel(self._scale, max(float(told), self._lowest_timestep))


class RobustNoiseController(MotionNoiseController):
    """The same, for motion alone: changes of light do not count, and a new scene begins anew.

    The difference is taken after the light of both frames was made alike, and never across a cut.
    The first chunk that shows nothing but a new scene starts as a stream's first chunk does.
    """

    def __init__(
        self, initial_scale: float, *, first_timestep: float, lowest_timestep: float = 0.0
    ) -> None:
        super().__init__(
            initial_scale, first_timestep=first_timestep, lowest_timestep=lowest_timestep
        )
        self._scenes = SceneBeginnings()
        self._is_first = True

    def next(self, pixels_TCHW: Tensor) -> StartLevel:
        reading, begins = self._scenes.look(pixels_TCHW)
        is_first, self._is_first = self._is_first, False
        if is_first or begins:
            return replace(self._first(), begins_scene=begins)
        return self._moved(reading.rms_motion)
