"""Groups of processes around the random DiT of tests.small_engine, and engines over them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.rows import RowPool
from streamgen.cache.window import Positions
from streamgen.clock import Clock, MonotonicClock, SimulatedClock
from streamgen.engine.batch import Row
from streamgen.engine.engine import Engine
from streamgen.engine.moving import NextBlocks
from streamgen.engine.pipeline import PipelinedExecutor
from streamgen.engine.rank import RankStage, run_batches
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage
from streamgen.metrics.export import Metrics
from streamgen.models.base import CausalDiT
from streamgen.models.wan.lora import LoraSet
from streamgen.parallel.balancer import Balancer
from streamgen.parallel.group import RankGroup
from streamgen.parallel.member import Member
from streamgen.parallel.partition import Layout, make_layout
from streamgen.parallel.ring import LOOPBACK, join_ring, leave_ring, open_store
from streamgen.scheduling.policy import Policy
from tests.small_engine import CHANNELS, CPU, GRID, NOISE, SIZE, SmallEngine, small_dit

NUM_BLOCKS = 4
NUM_ROWS = 16
NUM_CELLS = 8


@dataclass(frozen=True, slots=True)
class SmallJob:
    layout: Layout
    positions: Positions
    port: int
    block_s: tuple[float, ...] = ()
    """Seconds that a block takes on each rank, by a clock that knows nothing else; empty: the
    real ones."""


class SlowStage(Stage):
    """Tells a simulated clock how long its blocks have taken."""

    def __init__(self, *args: Any, clock: SimulatedClock, block_s: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self.clock = clock
        self.block_s = block_s

    def forward(self, rows: Sequence[Row], incoming: Tensor) -> Tensor:
        self.clock.advance_to(self.clock.now() + self.block_s * len(self.blocks))
        return super().forward(rows, incoming)

    def succeeded_by(
        self, model: CausalDiT, cache: KVCache, blocks: range, loras: LoraSet | None
    ) -> Stage:
        other = SlowStage(
            model, cache, device=CPU, blocks=blocks, clock=self.clock, block_s=self.block_s
        )
        other.prompts.take_over(self.prompts)
        return other


def run_small_rank(member: Member) -> None:

    torch.set_num_threads(1)
    job = member.receive()
    assert isinstance(job, SmallJob)
    model = small_dit(num_blocks=NUM_BLOCKS)
    blocks = job.layout.blocks(member.rank)
    facts = model.facts
    shape = CacheShape(len(blocks), NUM_ROWS, NUM_CELLS, facts.num_heads, facts.head_dim, GRID)
    cache = KVCache(shape, job.positions, device=CPU, dtype=torch.float32)
    ring = join_ring(
        member.rank, job.layout, store=(LOOPBACK, job.port), device=CPU, dtype=torch.float32
    )
    clock: Clock = MonotonicClock()
    part = Stage(model, cache, device=CPU, blocks=blocks)
    if job.block_s:
        clock = SimulatedClock()
        part = SlowStage(
            model, cache, device=CPU, blocks=blocks, clock=clock, block_s=job.block_s[member.rank]
        )
    stage = RankStage(
        member.rank,
        job.layout,
        part,
        DenoiseSlots(facts, NOISE),
        ring,
        clock,
        latent_shape=(CHANNELS, SIZE, SIZE),
        next_blocks=NextBlocks(
            member.rank, lambda _: (small_dit(num_blocks=NUM_BLOCKS), None), member.send
        ),
    )
    member.send(os.getpid())
    run_batches(member, stage)
    leave_ring(ring)


class SmallLaunch:
    """Starts groups; keeps the store that their ranks meet at."""

    def __init__(self, positions: Positions, block_s: tuple[float, ...] = ()) -> None:
        self._positions = positions
        self._block_s = block_s

    def __call__(self, layout: Layout) -> RankGroup:
        store = open_store(LOOPBACK)
        self._store = store
        group = RankGroup(layout.num_ranks, MonotonicClock())
        try:
            group.start(range(layout.num_ranks), run_small_rank)
            group.gather()
            group.broadcast(SmallJob(layout, self._positions, store.port, self._block_s))
            for _ in range(layout.num_ranks):
                group.receive()
            group.watch()
        except BaseException:
            group.kill()
            raise
        return group


class PipelinedEngine(SmallEngine):
    """As a SmallEngine, over a group of processes."""

    def __init__(self, policy: Policy, executor: PipelinedExecutor) -> None:
        super().__init__(policy, model=small_dit(num_blocks=NUM_BLOCKS))
        self.pipeline = executor
        self.engine = Engine(
            executor,
            policy,
            rows=RowPool(NUM_ROWS),
            max_rows=64,
            clock=SimulatedClock(),
            metrics=Metrics(SimulatedClock()),
        )


@contextmanager
def pipelined(
    split: str,
    num_ranks: int,
    *,
    num_passes: int,
    positions: Positions = Positions.ABSOLUTE,
    block_s: tuple[float, ...] = (),
) -> Iterator[PipelinedExecutor]:
    """With `block_s` ranks tell made-up seconds, and blocks move by them."""
    layout = make_layout(split, num_ranks, num_blocks=NUM_BLOCKS, num_passes=num_passes)
    executor = PipelinedExecutor(
        layout,
        SmallLaunch(positions, block_s),
        MonotonicClock(),
        device=CPU,
        balancer=Balancer(layout) if block_s else None,
    )
    try:
        yield executor
    finally:
        executor.close()
