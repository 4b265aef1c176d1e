"""What viewers see of a lost rank: the last picture held, for so long. Counts and times it."""

from __future__ import annotations

import logging

from streamgen.clock import Clock
from streamgen.metrics.export import Metrics

logger = logging.getLogger(__name__)


class Gaps:
    """From the last tick that went well to the first new chunk after a loss."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        self._chunks = metrics.counter("streamgen_chunks_total", "Chunks that finished.")
        self._count = metrics.counter("streamgen_gaps_total", "Times that a rank was lost.")
        self._seconds = metrics.summary(
            "streamgen_gap_seconds", "Seconds without a new chunk after a rank was lost."
        )
        self._went_well_s = clock.now()
        self._num_before: int | None = None

    def lost(self) -> None:
        """A rank is lost; a second one before any new chunk belongs to the same gap."""
        if self._num_before is None:
            self._num_before = self._chunks.value
            self._count.add()

    def ticked(self) -> None:
        """A tick went well."""
        now_s = self._clock.now()
        if self._num_before is None:
            self._went_well_s = now_s
            return
        if self._chunks.value == self._num_before:
            return
        gap_s = now_s - self._went_well_s
        self._seconds.add(gap_s)
        self._num_before, self._went_well_s = None, now_s
        logger.warning("streams go on; their last pictures were held for %.1f s", gap_s)
