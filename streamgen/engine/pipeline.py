"""An executor over several ranks: sends a batch to all of them, collects what comes out.

Holds no model. The prompts in use are kept here, too, so that ranks which had to be started anew
can be told them again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from streamgen.clock import Clock
from streamgen.engine.batch import (
    Batch,
    Completed,
    LorasScaled,
    Payload,
    PromptDropped,
    SlotKey,
    Started,
)
from streamgen.engine.rank import Done, Work
from streamgen.errors import RankLostError
from streamgen.parallel.group import RankGroup
from streamgen.parallel.partition import Layout
from streamgen.types import PromptId


@dataclass(slots=True, eq=False)
class Flight:
    """A batch under way, and what has been heard of it."""

    batch: Batch
    submitted_s: float
    missing: set[int]
    finished: dict[SlotKey, Tensor] = field(default_factory=dict[SlotKey, Tensor])
    seconds: dict[int, float] = field(default_factory=dict[int, float])


class PipelinedExecutor:
    """Ranks of a group behind the executor's protocol; `close` ends them."""

    def __init__(
        self,
        layout: Layout,
        launch: Callable[[], RankGroup],
        clock: Clock,
        *,
        device: torch.device,
    ) -> None:
        """`launch` gives a group whose ranks are ready for work; `device` gets finished latents.

        The clock is the ranks' own kind: a monotonic one.
        """
        self.layout = layout
        self._launch = launch
        self._clock = clock
        self._device = device
        self._flights: deque[Flight] = deque()
        self._prompts: dict[PromptId, Tensor] = {}
        self._untold: dict[PromptId, Tensor] = {}
        self._loras: LorasScaled | None = None
        self._untold_loras: LorasScaled | None = None
        self.num_restarts = 0
        self.busy_s = dict.fromkeys(range(layout.num_ranks), 0.0)
        """Seconds that each rank has worked, waiting left out."""
        self._group: RankGroup | None = launch()

    @property
    def stages(self) -> int:
        return self.layout.num_stages

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    @property
    def group(self) -> RankGroup:
        if self._group is None:
            raise RankLostError("the ranks have been ended; open the pipeline anew")
        return self._group

    def submit(self, batch: Batch, payload: Payload) -> None:
        """Raises RankLostError if a rank is lost; then `restart` is the only way on."""
        assert self.in_flight < self.stages
        self._remember(batch, payload)
        group = self.group
        group.look()
        prompts, self._untold = self._untold, {}
        started = {key: _on_host(one) for key, one in payload.started.items()}
        steps = {self.layout.group_of(row.where.step) for row in batch.rows}
        missing = {rank for step in steps for rank in self.layout.groups[step].ranks}
        if self._untold_loras is not None:
            batch = replace(batch, controls=(self._untold_loras, *batch.controls))
            self._untold_loras = None
        self._flights.append(Flight(batch, self._clock.now(), missing))
        plain = Work(batch, prompts)
        whole = Work(batch, prompts, started)
        for rank in range(self.layout.num_ranks):
            group.send(rank, whole if rank in self.layout.latent_ranks else plain)

    def collect(self) -> Completed:
        """The oldest batch in flight, waiting for it; raises RankLostError if a rank is lost."""
        flight = self._flights[0]
        while flight.missing:
            rank, message = self.group.receive()
            assert isinstance(message, Done)
            self._hear(rank, message)
        self._flights.popleft()
        took_s = self._clock.now() - flight.submitted_s
        if flight.batch.rows:
            self.group.slowest_s = max(took_s, self.group.slowest_s or 0.0)
        seconds = max(
            sum(flight.seconds.get(rank, 0.0) for rank in group.ranks)
            for group in self.layout.groups
        )
        timings = (flight.batch.timing(seconds),) if flight.batch.rows else ()
        return Completed(flight.batch, flight.finished, timings)

    def restart(self) -> None:
        """End all ranks and start others: caches and latents in flight are gone, prompts not.

        Raises what starting a group raises.
        """
        self._flights.clear()
        if self._group is not None:
            self._group.kill()
            self._group = None
        self.num_restarts += 1
        self._group = self._launch()
        self._untold = dict(self._prompts)
        self._untold_loras = self._loras

    def close(self) -> None:
        """End all ranks; twice does no harm."""
        if self._group is not None:
            self._group.close()
            self._group = None
        self._flights.clear()

    def _remember(self, batch: Batch, payload: Payload) -> None:
        for prompt, text_MD in payload.prompts.items():
            self._prompts[prompt] = self._untold[prompt] = text_MD.detach().cpu().clone()
        for control in batch.controls:
            if isinstance(control, PromptDropped):
                self._prompts.pop(control.prompt, None)
            elif isinstance(control, LorasScaled):
                self._loras = control

    def _hear(self, rank: int, done: Done) -> None:
        self.busy_s[rank] += done.seconds
        for flight in self._flights:
            if flight.batch.tick == done.tick:
                flight.missing.discard(rank)
                flight.seconds[rank] = done.seconds
                for key, latents_FCHW in done.finished.items():
                    flight.finished[key] = latents_FCHW.to(self._device, non_blocking=True)


def _on_host(started: Started) -> Started:
    """The same without views into larger storage, which a pickle would take along."""

    def copied(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().cpu().clone()

    latents_FCHW = copied(started.latents_FCHW)
    assert latents_FCHW is not None
    return replace(
        started,
        latents_FCHW=latents_FCHW,
        condition_FCHW=copied(started.condition_FCHW),
        endpoint_FCHW=copied(started.endpoint_FCHW),
        given_FCHW=copied(started.given_FCHW),
        encoding=None,
    )
