"""An executor over several ranks: sends a batch to all of them, collects what comes out.

Holds no model. The prompts in use are kept here, too, so that ranks which had to be started anew
can be told them again.
"""

from __future__ import annotations

import logging
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
from streamgen.engine.moving import Divide, Loaded
from streamgen.engine.rank import Done, Work
from streamgen.errors import RankLostError
from streamgen.metrics.trace import Span, Trace
from streamgen.parallel.balancer import Balancer
from streamgen.parallel.group import RankGroup
from streamgen.parallel.partition import Layout
from streamgen.types import PromptId

logger = logging.getLogger(__name__)


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
        launch: Callable[[Layout], RankGroup],
        clock: Clock,
        *,
        device: torch.device,
        balancer: Balancer | None = None,
    ) -> None:
        """`launch` gives a group whose ranks are ready for work; `device` gets finished latents;
        a `balancer` says when blocks are to move to other ranks: None, never.

        The clock is the ranks' own kind: a monotonic one.
        """
        self.layout = layout
        self._balancer = balancer
        self._coming: Layout | None = None
        self._loading: set[int] = set()
        self.trace: Trace | None = None
        """Takes what each rank did, one track a rank, in the leader's time."""
        self.num_moves = 0
        """How often blocks have moved."""
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
        self._group: RankGroup | None = launch(layout)

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
        layout = self._layout_from_now_on()
        plain = Work(batch, prompts, layout=layout)
        whole = Work(batch, prompts, started, layout)
        for rank in range(self.layout.num_ranks):
            group.send(rank, whole if rank in self.layout.latent_ranks else plain)

    def collect(self) -> Completed:
        """The oldest batch in flight, waiting for it; raises RankLostError if a rank is lost."""
        flight = self._flights[0]
        while flight.missing:
            rank, message = self.group.receive()
            if isinstance(message, Loaded):
                self._hear_loaded(rank, message)
                continue
            assert isinstance(message, Done)
            self._hear(rank, message)
        self._flights.popleft()
        self._look_at_balance(flight)
        took_s = self._clock.now() - flight.submitted_s
        if flight.batch.rows:
            self.group.slowest_s = max(took_s, self.group.slowest_s or 0.0)
        seconds = max(
            sum(flight.seconds.get(rank, 0.0) for rank in group.ranks)
            for group in self.layout.groups
        )
        timings = (flight.batch.timing(seconds),) if flight.batch.rows else ()
        return Completed(flight.batch, flight.finished, timings)

    def divide(self, layout: Layout) -> None:
        """Have blocks move: as soon as all ranks have loaded theirs, with the next batch.

        The layout differs from the present one in blocks only; asked for again while it is under
        way, nothing happens.
        """
        if self._coming is not None:
            return
        self._coming = layout
        self._loading = set(range(layout.num_ranks))
        self.group.broadcast(Divide(layout))

    def restart(self) -> None:
        """End all ranks and start others: caches and latents in flight are gone, prompts not.

        Raises what starting a group raises.
        """
        self._flights.clear()
        if self._group is not None:
            self._group.kill()
            self._group = None
        self.num_restarts += 1
        self._coming = None
        self._loading.clear()
        self._group = self._launch(self.layout)
        self._untold = dict(self._prompts)
        self._untold_loras = self._loras

    def close(self) -> None:
        """End all ranks; twice does no harm."""
        if self._group is not None:
            self._group.close()
            self._group = None
        self._flights.clear()

    def _layout_from_now_on(self) -> Layout | None:
        """The coming layout, once all are ready for it."""
        if self._coming is None or self._loading:
            return None
        self.layout, self._coming = self._coming, None
        self.num_moves += 1
        logger.info("blocks have moved: %s", self.layout)
        if self._balancer is not None:
            self._balancer.moved(self.layout)
        return self.layout

    def _hear_loaded(self, rank: int, loaded: Loaded) -> None:
        if loaded.layout != self._coming:
            return
        self._loading.discard(rank)
        if loaded.error is not None:
            logger.warning("rank %d cannot take other blocks: %s", rank, loaded.error)
            self._coming = self._balancer = None  # nor would it the next time

    def _look_at_balance(self, flight: Flight) -> None:
        if self._balancer is None or not flight.batch.rows or self._coming is not None:
            return
        wanted = self._balancer.observe(flight.seconds)
        if wanted is not None:
            self.divide(wanted)

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
        if self.trace is not None:
            now_s = self._clock.now()
            facts = {"tick": done.tick}
            self.trace.add(Span("work", f"rank {rank}", now_s - done.seconds, now_s, facts))
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
