"""Noise levels of flow matching: the table a model was trained on, and the few steps taken on it.

Host floats only: what leaves this module is a Python float, so that a plan or a batch can carry it
without a device transfer. Knows neither tensors of latents nor which chunk is at which step.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch

TIMESTEP_MAX = (
    1000.0  # timestep of sigma 1; timestep = 1000 * sigma (Wan 2.1, Self-Forcing 33593df)
)


@dataclass(frozen=True)
class NoiseSchedule:
    """The shifted flow-matching table: sigma falls from 1 towards 0 over `num_levels` entries.

    s_i = 1 - i / num_levels,  sigma_i = shift * s_i / (1 + (shift - 1) * s_i),  in float32

    (Esser et al. 2024, arXiv:2403.03206, sec. 5.3.2, eq. 23; computed in float32 and in the order
    of Self-Forcing 33593df, utils/scheduler.py with sigma_min 0 and extra_one_step, since few-step
    models were distilled on these very numbers.) The lowest entry is above 0: no timestep, not even
    0, is ever looked up to sigma 0.

    `shift` >= 1 moves levels towards noise (Self-Forcing 5, StreamDiffusionV2 8).
    """

    shift: float
    num_levels: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift must be positive and finite, not {self.shift}")
        if self.num_levels < 1:
            raise ValueError(f"num_levels must be at least 1, not {self.num_levels}")

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """Falling, float32 values held as Python floats; the first is 1 up to rounding."""
        return tuple(self._table().tolist())

    @cached_property
    def timesteps(self) -> tuple[float, ...]:
        """1000 * sigma in float32, falling from 1000."""
        return tuple((self._table() * TIMESTEP_MAX).tolist())

    def _table(self) -> torch.Tensor:
        levels = torch.linspace(1.0, 0.0, self.num_levels + 1, dtype=torch.float32)[:-1]
        sigmas = self.shift * levels / (1 + (self.shift - 1) * levels)
        return sigmas.clamp(max=1.0)  # the rounding of an odd shift may pass 1

    def warp(self, step_list: Sequence[int]) -> tuple[float, ...]:
        """Timesteps of the entries that a recipe's step list names, counted from the clean end.

        T stands for entry num_levels - T, so with 1000 levels and shift 5, 750 becomes 937.5; 0
        becomes 0. Fractions are kept: models are told 833.33, not 833. Raises ValueError if a step
        is not in [0, num_levels].
        """
        for level in step_list:
            if not 0 <= level <= self.num_levels:
                raise ValueError(f"step {level} is not in [0, {self.num_levels}]")
        padded = (*self.timesteps, 0.0)
        return tuple(padded[self.num_levels - level] for level in step_list)

    def nearest_index(self, timestep: float) -> int:
        """Index of the table entry nearest to `timestep` (the noisier one of two equally near)."""
        return _nearest_falling(self.timesteps, timestep)

    def sigma_at(self, timestep: float) -> float:
        """Sigma of the nearest table entry; timestep 0 gives the table's last sigma, not 0."""
        return self.sigmas[self.nearest_index(timestep)]

    def timestep_at(self, sigma: float) -> float:
        """Timestep of the table entry nearest to `sigma`; inverts `sigma_at` on the table."""
        return self.timesteps[_nearest_falling(self.sigmas, sigma)]


@dataclass(frozen=True, slots=True)
class Ladder:
    """The levels a chunk visits, from the noisiest down; step i is index i.

    `timesteps` is what the model is told, `sigmas` how much noise the latents hold there.
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.timesteps or len(self.timesteps) != len(self.sigmas):
            raise ValueError(
                f"a ladder needs as many sigmas as timesteps and at least one, "
                f"not {len(self.sigmas)} and {len(self.timesteps)}"
            )
        for higher, lower in pairwise(self.timesteps):
            if not higher > lower:
                raise ValueError(f"timesteps must fall, but {higher} is followed by {lower}")
        if self.timesteps[0] > TIMESTEP_MAX or self.timesteps[-1] < 0:
            raise ValueError(f"timesteps must lie in [0, {TIMESTEP_MAX:g}], not {self.timesteps}")

    @classmethod
    def warped(cls, schedule: NoiseSchedule, step_list: Sequence[int]) -> Ladder:
        """The ladder of recipes that index the table (Self-Forcing, LongLive, Rolling Forcing)."""
        return cls.plain(schedule, schedule.warp(step_list))

    @classmethod
    def plain(cls, schedule: NoiseSchedule, timesteps: Sequence[float]) -> Ladder:
        """The ladder of recipes that name timesteps (StreamDiffusionV2): sigmas are looked up."""
        told = tuple(float(timestep) for timestep in timesteps)
        return cls(timesteps=told, sigmas=tuple(schedule.sigma_at(t) for t in told))

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)

    def next_sigma(self, step: int) -> float | None:
        """The sigma after `step`, or None after the last step, whose result is the clean chunk."""
        if not 0 <= step < self.num_steps:
            raise ValueError(f"step {step} is not in [0, {self.num_steps})")
        return self.sigmas[step + 1] if step + 1 < self.num_steps else None


def _nearest_falling(table: tuple[float, ...], value: float) -> int:
    """Index of the entry nearest to `value` in a falling table; the first of two equally near."""
    after = bisect_left(table, -value, key=lambda entry: -entry)
    if after == 0:
        return 0
    if after == len(table):
        return after - 1
    return after - 1 if table[after - 1] - value <= value - table[after] else after
