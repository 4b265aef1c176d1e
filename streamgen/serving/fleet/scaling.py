"""How many replicas there should be, from what they say they can do. Pure: no network, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streamgen.serving.gateway.bodies import Load, State


@dataclass(frozen=True, slots=True)
class Scaling:
    """Bounds, and how much room is kept for who comes next."""

    least: int
    most: int
    spare: float = 0.2
    """Share of the sessions that run, for which there is room beside them."""

    def wanted(self, loads: Sequence[Load], *, waiting: int = 0) -> int:
        """Replicas for the sessions that run and wait, at what one keeps up with by prediction.

        As many as there are (`loads` has one of each) while none has said what it can do.
        """
        ready = [load for load in loads if load.state is State.READY]
        capacity = sum(load.capacity for load in ready) / len(ready) if ready else 0.0
        if capacity < 1:
            return self._bounded(len(loads))
        sessions = waiting + sum(load.sessions for load in loads)
        return self._bounded(math.ceil(sessions * (1 + self.spare) / capacity))

    def _bounded(self, count: int) -> int:
        return max(self.least, min(self.most, count))
