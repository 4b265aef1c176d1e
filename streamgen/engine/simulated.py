"""An executor that computes nothing and takes exactly as long as it is told: a stopwatch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from streamgen.clock import SimulatedClock
from streamgen.engine.batch import Batch, Completed, Payload


class SimulatedExecutor:
    """A pipeline of equal or unequal stages on a simulated clock.

    A batch enters a stage when it has left the stage before and the stage has let go of the batch
    before it; `collect` moves the clock to the moment when the oldest batch leaves the last stage.
    """

    def __init__(
        self, clock: SimulatedClock, stage_seconds: tuple[Callable[[Batch], float], ...]
    ) -> None:
        """`stage_seconds` maps a batch to seconds, one function a stage."""
        if not stage_seconds:
            raise ValueError("a pipeline needs at least one stage")
        self._clock = clock
        self._stage_seconds = stage_seconds
        self._free_s = [clock.now()] * len(stage_seconds)
        self._flying: deque[tuple[Batch, float, float]] = deque()
        self.busy_s = [0.0] * len(stage_seconds)
        """Seconds that each stage has worked."""

    @property
    def stages(self) -> int:
        return len(self._stage_seconds)

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    def submit(self, batch: Batch, payload: Payload) -> None:
        assert self.in_flight < self.stages
        time_s = self._clock.now()
        worked_s = 0.0
        for stage, seconds_of in enumerate(self._stage_seconds):
            seconds = seconds_of(batch)
            time_s = max(time_s, self._free_s[stage]) + seconds
            self._free_s[stage] = time_s
            self.busy_s[stage] += seconds
            worked_s += seconds
        self._flying.append((batch, time_s, worked_s))

    def collect(self) -> Completed:
        batch, done_s, worked_s = self._flying.popleft()
        self._clock.advance_to(done_s)
        finished = {
            part.key: None
            for row in batch.rows
            if not (row.is_context or row.is_negative)
            for part in row.parts
            if part.next_sigma is None
        }
        timings = (batch.timing(worked_s),) if batch.rows else ()
        return Completed(batch, finished, timings)
