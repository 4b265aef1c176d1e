"""Shares of samples that agree, with the interval in which the true share lies, and the control.

Knows neither pictures nor models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamgen.metrics.json_value import Json

Z_95 = 1.959964  # standard deviations that hold 95 % of a normal distribution

Attributes = Mapping[str, str | None]
"""What a clip should show, or what was seen in it, by name; None: not to be seen."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    num_hits: int
    num_samples: int

    @property
    def value(self) -> float | None:
        return self.num_hits / self.num_samples if self.num_samples else None

    def to_json(self) -> dict[str, Json]:
        low, high = wilson_interval(self.num_hits, self.num_samples)
        value = self.value
        return {
            "share": None if value is None else round(value, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "samples": self.num_samples,
        }


def wilson_interval(num_hits: int, num_samples: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); (0, 1) without samples.

    Raises ValueError for fewer than no hits or more hits than samples.
    """
    if not 0 <= num_hits <= num_samples:
        raise ValueError(f"{num_hits} hits of {num_samples} samples cannot be")
    if num_samples == 0:
        return 0.0, 1.0
    share, square = num_hits / num_samples, Z_95**2 / num_samples
    centre = (share + square / 2) / (1 + square)
    reach = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    low = 0.0 if num_hits == 0 else centre - reach
    high = 1.0 if num_hits == num_samples else centre + reach
    return low, high


def agreement(
    wanted: Sequence[Attributes], seen: Sequence[Attributes], names: Sequence[str]
) -> dict[str, Share]:
    """How often what was seen is what was wanted, for each name; a None was not seen, so wrong."""
    pairs = list(zip(wanted, seen, strict=True))
    return {
        name: Share(sum(want[name] == see[name] for want, see in pairs), len(pairs))
        for name in names
    }


def strangers(num_samples: int) -> list[int]:
    """For every sample the number of another one, each taken once: the control's pairs.

    Raises ValueError for fewer than two samples, which have no strangers.
    """
    if num_samples < 2:
        raise ValueError(f"{num_samples} samples have no strangers; take at least two")
    return [(index + 1) % num_samples for index in range(num_samples)]


def shuffled_agreement(
    wanted: Sequence[Attributes], seen: Sequence[Attributes], names: Sequence[str]
) -> dict[str, Share]:
    """`agreement` of every clip with another clip's prompt: what a blind model would score."""
    others = [wanted[index] for index in strangers(len(wanted))]
    return agreement(others, seen, names)


def shares_json(shares: Mapping[str, Share]) -> dict[str, Json]:
    return {name: share.to_json() for name, share in shares.items()}
