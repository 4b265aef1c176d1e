"""Groups of processes around the random DiT of tests.small_engine, and engines over them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.rows import RowPool
from streamgen.cache.window import Positions
from streamgen.clock import MonotonicClock, SimulatedClock
from streamgen.engine.engine import Engine
from streamgen.engine.pipeline import PipelinedExecutor
from streamgen.engine.rank import RankStage, run_batches
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage
from streamgen.metrics.export import Metrics
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
    stage = RankStage(
        member.rank,
        job.layout,
        Stage(model, cache, device=CPU, blocks=blocks),
        DenoiseSlots(facts, NOISE),
        ring,
        MonotonicClock(),
        latent_shape=(CHANNELS, SIZE, SIZE),
    )
    member.send(os.getpid())
    run_batches(member, stage)
    leave_ring(ring)


class SmallLaunch:
    """Starts groups; keeps the store that their ranks meet at."""

    def __init__(self, layout: Layout, positions: Positions) -> None:
        self._layout = layout
        self._positions = positions

    def __call__(self) -> RankGroup:
        store = open_store(LOOPBACK)
        self._store = store
        group = RankGroup(self._layout.num_ranks, MonotonicClock())
        try:
            group.start(range(self._layout.num_ranks), run_small_rank)
            group.gather()
            group.broadcast(SmallJob(self._layout, self._positions, store.port))
            for _ in range(self._layout.num_ranks):
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
) -> Iterator[PipelinedExecutor]:
    layout = make_layout(split, num_ranks, num_blocks=NUM_BLOCKS, num_passes=num_passes)
    launch = SmallLaunch(layout, positions)
    executor = PipelinedExecutor(layout, launch, MonotonicClock(), device=CPU)
    try:
        yield executor
    finally:
        executor.close()
