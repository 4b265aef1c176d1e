"""Ranks of one pipeline: the leader starts them, and what each process of them does.

Before any weights load, every rank looks whether it could: its device, its files, its versions.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from dataclasses import dataclass

import torch

from streamgen.clock import MonotonicClock
from streamgen.diffusion.noise import NoiseSource
from streamgen.engine.moving import NextBlocks
from streamgen.engine.pipeline import PipelinedExecutor
from streamgen.engine.rank import RankStage, run_batches
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.slots import DenoiseSlots
from streamgen.errors import ConfigError, RankLostError
from streamgen.ops.backend import Backend, choose_backend, num_cores
from streamgen.parallel.balancer import THRESHOLD, Balancer
from streamgen.parallel.group import RankGroup
from streamgen.parallel.launched import Launch, keep_rank, launched, meet
from streamgen.parallel.member import Member
from streamgen.parallel.partition import Layout, make_layout
from streamgen.parallel.planner import CodecPlace
from streamgen.parallel.ring import LOOPBACK, join_ring, leave_ring, open_store
from streamgen.serving.build import Pipeline
from streamgen.serving.gaps import Gaps
from streamgen.serving.stages import StagePlan, build_stage, check_files, load_blocks

logger = logging.getLogger(__name__)

MAX_RANKS = 64
MAX_RESTARTS = 3  # in RESTART_WINDOW_S; more is no accident
RESTART_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class RankJob:
    """Everything that a rank must know; sent once."""

    plan: StagePlan
    layout: Layout
    noise: NoiseSource
    device: str
    dtype: str
    num_threads: int
    sessions: int
    store: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Checked:
    """A rank could do its job."""

    device: str


@dataclass(frozen=True, slots=True)
class Load:
    """All ranks could: load weights."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A rank has loaded its part and met the others."""


class Ranks:
    """The processes of one pipeline: started, watched, started again, ended by this one.

    `gpus` counts ranks; on a CPU they are processes that share its cores. `split` is "layers"
    (each has some blocks), "steps" (each has some passes of the ladder), or the ranks of each group
    of steps, as "2+1".
    """

    def __init__(
        self,
        gpus: int,
        split: str,
        *,
        noise: NoiseSource,
        codec: str = "first",
        rebalance: float = THRESHOLD,
        launch: Launch | None = None,
    ) -> None:
        """`codec`: which GPUs encode and decode, see CodecPlace. `rebalance`: blocks move to other
        ranks while the slowest takes longer than the mean by more than this share; 0: never.
        `launch`: torchrun has started a process for each rank. Raises ConfigError."""
        if not 2 <= gpus <= MAX_RANKS:
            raise ConfigError(f"{gpus} GPUs are not in 2 to {MAX_RANKS}; leave it out for one")
        self._num_ranks = gpus
        self._split = split
        if not 0 <= rebalance <= 10:
            raise ConfigError(f"a rebalance of {rebalance:g} is not in 0 to 10; 0 moves nothing")
        self._noise = noise
        self._rebalance = rebalance
        self._codec = codec_place(codec)
        self._first_device = first_device(codec)
        self._num_here = gpus if launch is None else launch.num_local
        self._meeting = None if launch is None else meet()
        self._clock = MonotonicClock()
        self._executor: PipelinedExecutor | None = None
        self._gaps: Gaps | None = None
        self._restarts_s: deque[float] = deque(maxlen=MAX_RESTARTS)

    @property
    def executor(self) -> PipelinedExecutor:
        assert self._executor is not None, "the pipeline has not been built"
        return self._executor

    def decode_device(self, backend: Backend) -> torch.device:
        """Where pictures are decoded. ConfigError if the codec cannot be where it was asked for."""
        place = self._codec
        if backend.device.type != "cuda":
            if place is not CodecPlace.FIRST:
                raise ConfigError(
                    f"--codec {place} chooses among GPUs and the model runs on {backend.device}; "
                    f"leave it out"
                )
            return backend.device
        num_needed = self._num_here + self._first_device
        if num_needed > torch.cuda.device_count():
            raise ConfigError(
                f"{num_needed} GPUs are needed here and there are {torch.cuda.device_count()}; "
                f"ask for fewer ranks"
            )
        if place is not CodecPlace.ENDS:
            return backend.device
        if self._num_here < self._num_ranks:
            raise ConfigError("the last rank is on another machine; use --codec first or own")
        return torch.device("cuda", self._num_ranks - 1)

    def make_executor(self, plan: StagePlan, backend: Backend) -> PipelinedExecutor:
        """Start all ranks and wait until they are ready for work.

        Raises ConfigError or CheckpointError, before weights load, if a rank could not work.
        """
        decode_device = self.decode_device(backend)
        layout = make_layout(
            self._split,
            self._num_ranks,
            num_blocks=plan.facts.num_blocks,
            num_passes=plan.recipe.num_passes,
        )
        if len(layout.groups) > 1 and plan.recipe.cache.sink_threshold is not None:
            raise ConfigError(
                "adaptive sinks are chosen where their blocks are and cannot be divided by steps; "
                'divide by layers or set cache.sink_kind = "fixed"'
            )
        if len(layout.groups) > 1 and plan.recipe.mode is CacheMode.JOINT:
            raise ConfigError(
                'cache.mode = "joint" takes all steps in one forward, which cannot be divided by '
                "steps; divide by layers"
            )
        speed = plan.config.speed
        if speed.saves_work:
            raise ConfigError(
                "speed.clean_share, speed.reuse_steps and speed.heads are for one process; leave "
                "them out with --gpus"
            )
        if speed.compile or speed.linears != "full":
            raise ConfigError(
                "speed.compile and 8-bit speed.linears are for one process; leave them out with "
                "several GPUs"
            )
        logger.info("%s", layout)

        def launch(layout: Layout) -> RankGroup:
            return self._launch(plan, backend, layout)

        can_move = self._rebalance and plan.recipe.cache.sink_threshold is None
        self._executor = PipelinedExecutor(
            layout,
            launch,
            self._clock,
            device=decode_device,
            balancer=Balancer(layout, threshold=self._rebalance) if can_move else None,
        )
        return self._executor

    def tick(self, pipeline: Pipeline) -> bool:
        """A tick of the engine; if a rank is lost, every stream goes on from its last pictures.

        Raises RankLostError if that happens too often.
        """
        gaps = self._gaps = self._gaps or Gaps(pipeline.metrics, self._clock)
        self.executor.trace = pipeline.engine.trace
        try:
            did_work = pipeline.engine.tick()
            gaps.ticked()
            return did_work
        except RankLostError as lost:
            gaps.lost()
            self.restart(lost)
            pipeline.engine.recover(pipeline.noise)
            return True

    def restart(self, lost: RankLostError) -> None:
        """Start all ranks anew after one was lost; raises `lost` if that happens too often."""
        now_s = self._clock.now()
        is_often = len(self._restarts_s) == MAX_RESTARTS
        if is_often and now_s - self._restarts_s[0] < RESTART_WINDOW_S:
            raise lost
        self._restarts_s.append(now_s)
        logger.warning("%s; all ranks start anew", str(lost).partition(";")[0])
        self.executor.restart()

    def close(self) -> None:
        """End all ranks; twice does no harm."""
        if self._executor is not None:
            self._executor.close()
        if self._meeting is not None:
            self._meeting.end(self._num_ranks - 1, self._clock)

    def _launch(self, plan: StagePlan, backend: Backend, layout: Layout) -> RankGroup:
        host = LOOPBACK if self._meeting is None else self._meeting.host
        store = self._store = open_store(host)  # NCCL comes back to it when a route is new
        config = plan.config
        job = RankJob(
            plan=plan,
            layout=layout,
            noise=self._noise,
            device=backend.device.type,
            dtype=str(backend.dtype).removeprefix("torch."),
            num_threads=config.model.num_threads or max(1, num_cores() // self._num_here),
            sessions=config.engine.sessions,
            store=(host, store.port),
        )
        group = RankGroup(self._num_ranks, self._clock, host=host)
        try:
            if self._meeting is not None:
                self._meeting.announce(group.leader)
            own = range(self._num_ranks) if self._meeting is None else (0,)
            group.start(own, run_rank, first_device=self._first_device)
            group.gather()
            group.broadcast(job)
            self._hear_all(group, Checked)
            group.broadcast(Load())
            self._hear_all(group, Ready)
            group.watch()
        except RankLostError:
            group.kill()
            raise
        except BaseException:
            group.kill()
            if self._meeting is not None:
                self._meeting.end(self._num_ranks - 1, self._clock)
            raise
        return group

    def _hear_all(self, group: RankGroup, kind: type[Checked] | type[Ready]) -> None:
        for _ in range(self._num_ranks):
            rank, message = group.receive()
            assert isinstance(message, kind), f"rank {rank} said {message}"


def run_rank(member: Member) -> None:
    """The life of one rank: check, load, meet the others, run batches."""
    job = member.receive()
    if job is None:
        return
    assert isinstance(job, RankJob)
    backend = _backend(job, member.device)
    check_files(job.plan)
    member.send(Checked(str(backend.device)))
    if member.receive() is None:
        return
    plan, layout = job.plan, job.layout
    stage = build_stage(
        plan,
        backend,
        layout.blocks(member.rank),
        rows_of_rank(plan.recipe, layout, member.rank) * job.sessions,
    )
    ring = join_ring(
        member.rank, layout, store=job.store, device=backend.device, dtype=backend.dtype
    )
    facts = plan.facts
    rank_stage = RankStage(
        member.rank,
        layout,
        stage,
        DenoiseSlots(facts, job.noise, backend.operations.flow_step),
        ring,
        MonotonicClock(),
        latent_shape=(facts.latent_channels, plan.latent_height, plan.latent_width),
        next_blocks=NextBlocks(
            member.rank, lambda blocks: load_blocks(plan, backend, blocks), member.send
        ),
    )
    member.send(Ready())
    run_batches(member, rank_stage)
    leave_ring(ring)


def rows_of_rank(recipe: Recipe, layout: Layout, rank: int) -> int:
    """Cache rows of one session that the passes of a rank work in."""
    passes = layout.groups[layout.place(rank)[0]].passes
    return len(
        {
            recipe.cache_row(step, is_negative)
            for step in passes
            for is_negative in ((False, True) if recipe.has_negative(step) else (False,))
        }
    )


def divided(
    gpus: int, split: str, codec: str, rebalance: float, noise: NoiseSource
) -> Ranks | None:
    """Ranks for so many GPUs, or for all that torchrun has started; None: one process does it all.

    Raises ConfigError as `Ranks` does.
    """
    launch = launched()
    num_ranks = gpus if launch is None else launch.num_ranks
    if num_ranks == 1:
        return None
    return Ranks(num_ranks, split, noise=noise, codec=codec, rebalance=rebalance, launch=launch)


def codec_place(name: str) -> CodecPlace:
    """ConfigError for one that is not known."""
    try:
        return CodecPlace(name)
    except ValueError:
        known = ", ".join(CodecPlace)
        raise ConfigError(f"codec place {name!r} is not known; known: {known}") from None


def first_device(codec: str) -> int:
    """The first GPU of the leader's machine that runs blocks."""
    return int(codec_place(codec) is CodecPlace.OWN)


def keep_launched_rank(launch: Launch, *, codec: str) -> int:
    """What torchrun's processes do, but the first: keep one rank; returns an exit code."""
    skipped = first_device(codec) if launch.node == 0 else 0
    device = launch.local_rank + skipped
    return keep_rank(launch, run_rank, MonotonicClock(), device=device)


def _backend(job: RankJob, device: int) -> Backend:
    """This rank's own device; ConfigError if there is none for it."""
    backend = choose_backend(job.device, job.dtype, job.num_threads)
    if backend.device.type != "cuda":
        return backend
    num_devices = torch.cuda.device_count()
    if device >= num_devices:
        raise ConfigError(
            f"there is no GPU {device} for this rank, {socket.gethostname()} has {num_devices}; "
            f"ask for fewer ranks there"
        )
    torch.cuda.set_device(device)
    return Backend(torch.device("cuda", device), backend.dtype, backend.operations)
