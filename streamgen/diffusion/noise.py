"""Where noise comes from: a draw is a function of (seed, chunk, step), never of what ran before.

So the picture does not depend on the schedule: the same session yields the same chunks alone or
beside others, in a batch or in sequence, on one rank or four. Knows neither devices nor levels.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

CONDITION_STEP = -1  # the draw for noise on conditions (context chunks, an input picture)
START_STEP = 0  # the draw that a chunk starts from


class NoiseSource(Protocol):
    def noise(self, seed: int, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers for one chunk: float32, on the CPU, owned by the caller.

        `step` i > 0 is the draw with which the chunk enters step i of its ladder, START_STEP the
        one it begins with, CONDITION_STEP the one for its conditions. The same arguments give the
        same numbers, whatever was asked for in between.
        """
        ...


class SeededNoise:
    """Noise computed on demand and stored nowhere. Has no state: one object may serve all sessions.

    The 128-bit BLAKE2b digest of the triple is the key of a Philox counter generator (Salmon et
    al. 2011, doi:10.1145/2063384.2063405). torch's CPU generator is not used because it keeps only
    the lower 32 bits of a seed: after some 77,000 draws, a few hours of stream, two would as likely
    as not be equal.
    """

    def noise(self, seed: int, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """See NoiseSource. Raises ValueError if a number does not fit into 64 signed bits."""
        generator = np.random.Generator(np.random.Philox(key=_key(seed, chunk, step)))
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


class RecordedNoise:
    """Noise that was recorded elsewhere, by (chunk, step), of the one seed of the recording.

    Replays the draws of another implementation, so that its results can be compared number by
    number. Hands out copies; the recording stays as it is.
    """

    def __init__(self, draws: Mapping[tuple[int, int], Tensor]) -> None:
        self._draws = dict(draws)

    def noise(self, seed: int, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """See NoiseSource; ignores `seed`. Raises ValueError if the draw was not recorded so."""
        draw = self._draws.get((chunk, step))
        if draw is None:
            raise ValueError(f"no noise was recorded for chunk {chunk}, step {step}")
        if tuple(draw.shape) != tuple(shape):
            raise ValueError(
                f"noise of chunk {chunk}, step {step} was recorded as {tuple(draw.shape)}, "
                f"not {tuple(shape)}"
            )
        return draw.to(device="cpu", dtype=torch.float32, copy=True)


def _key(seed: int, chunk: int, step: int) -> int:
    """128 bits, equal on every machine and in every Python process (unlike `hash`)."""
    try:
        triple = struct.pack("<qqq", seed, chunk, step)
    except struct.error as error:
        raise ValueError(f"({seed}, {chunk}, {step}) does not fit into 64-bit integers") from error
    return int.from_bytes(blake2b(triple, digest_size=16).digest(), "little")
