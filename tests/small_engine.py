"""A real engine around a random DiT so small that a whole stream takes milliseconds.

Legend: B rows, F latent frames, C channels, H W latent height and width, M text tokens, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from streamgen.cache.adaptive import AdaptiveSinks
from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.residuals import Residuals
from streamgen.cache.rows import RowPool
from streamgen.cache.window import Positions
from streamgen.clock import SimulatedClock
from streamgen.diffusion.flow import mix_input
from streamgen.diffusion.guidance import Guidance
from streamgen.diffusion.noise import SeededNoise
from streamgen.diffusion.schedule import Ladder, NoiseSchedule
from streamgen.engine.batch import Level, Started
from streamgen.engine.collaborators import ChunkStarter
from streamgen.engine.engine import Engine
from streamgen.engine.executor import LocalExecutor
from streamgen.engine.forward import ForwardRunner
from streamgen.engine.lanes import InOrder, Lanes
from streamgen.engine.recipe import CacheMode, CachePolicy, Recipe
from streamgen.engine.session import Session
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage
from streamgen.engine.start import NoiseStarter, StreamGeometry
from streamgen.metrics.export import Metrics
from streamgen.models.base import Prediction
from streamgen.models.codec_facts import CodecFacts
from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.dit import WanDiT
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.quantise import KVFormat
from streamgen.ops.rope import TokenGrid
from streamgen.scheduling.policy import Policy
from streamgen.types import Clip, PromptId

CPU = torch.device("cpu")
CHANNELS = 4
SIZE = 4  # latent height and width
GRID = TokenGrid(2, 2)
SCHEDULE = NoiseSchedule(5.0)
STEPS = (1000, 750, 500, 250)
CONTEXT = Level(0.0, 0.0)
NOISE = SeededNoise()
GEOMETRY = StreamGeometry(
    CodecFacts(
        temporal_stride=1, spatial_stride=1, latent_channels=CHANNELS, first_frame_is_single=False
    ),
    latent_height=SIZE,
    latent_width=SIZE,
    fps=8.0,
    device=CPU,
    dtype=torch.float32,
)


def small_dit(
    *,
    num_blocks: int = 2,
    condition_channels: int = 0,
    prediction: Prediction = Prediction.VELOCITY,
) -> WanDiT:
    """Random weights, always the same ones; what it predicts depends visibly on all it reads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WanDiT(
            WanConfig(
                in_dim=CHANNELS + condition_channels,
                out_dim=CHANNELS,
                dim=32,
                ffn_dim=64,
                freq_dim=16,
                text_dim=8,
                text_len=6,
                num_heads=2,
                num_blocks=num_blocks,
                patch_height=2,
                patch_width=2,
                eps=1e-6,
            ),
            prediction,
        )
    return model.eval().requires_grad_(False)


def text(number: int) -> Tensor:
    """Features of a made-up prompt, [M, D], of 1 to 6 tokens."""
    return NOISE.noise(number, 0, 0, (1 + number % 6, 8))


def small_recipe(
    *,
    steps: int = 2,
    mode: CacheMode = CacheMode.PER_STEP,
    sinks: int = 1,
    ring: int = 3,
    positions: Positions = Positions.ABSOLUTE,
    chunk_frames: int = 1,
    first_chunk_frames: int | None = None,
    first_chunk_is_alone: bool = False,
    guidance: Guidance | None = None,
    cache: CachePolicy | None = None,
    lag: int = 1,
) -> Recipe:
    """A recipe of 1 to 4 steps; the first chunk is like the others unless told otherwise.

    What a window of chunks cannot follow (`joint` mode) it is spared.
    """
    if mode is CacheMode.JOINT:
        positions, guidance, first_chunk_is_alone = Positions.WINDOW, None, False
        ring = max(ring, steps * max(chunk_frames, first_chunk_frames or 0))
    return Recipe(
        ladder=Ladder.warped(SCHEDULE, STEPS[:steps]),
        mode=mode,
        context_level=CONTEXT,
        sinks=sinks,
        ring=ring,
        positions=positions,
        chunk_frames=chunk_frames,
        first_chunk_frames=first_chunk_frames or chunk_frames,
        first_chunk_is_alone=first_chunk_is_alone,
        guidance=guidance or Guidance(),
        cache=cache or CachePolicy(),
        lag=lag,
    )


class VideoLikeStarter:
    """As video-to-video does, without pictures: latents of an input, mixed with noise to a level
    that changes from chunk to chunk. Everything is a function of (seed, chunk)."""

    waiting_clips = 0

    def __init__(self, recipe: Recipe, *, seed: int, max_chunks: int) -> None:
        self._recipe = recipe
        self._seed = seed
        self._max_chunks = max_chunks
        self._num_started = 0

    def ready(self) -> bool:
        return not self.has_ended()

    def has_ended(self) -> bool:
        return self._num_started >= self._max_chunks

    def drop(self, num_clips: int) -> None:
        raise AssertionError("nothing is dropped here")

    def start(self, chunk: int) -> Started:
        self._num_started += 1
        shape = GEOMETRY.latent_shape(self._recipe.num_frames(chunk))
        clean_FCHW = NOISE.noise(self._seed, chunk, 100, shape)
        told = 880.0 + 20 * ((self._seed + chunk) % 5)
        noise_FCHW = NOISE.noise(self._seed, chunk, 0, shape)
        return Started(
            latents_FCHW=mix_input(clean_FCHW, noise_FCHW, told / 1000),
            condition_FCHW=None,
            endpoint_FCHW=clean_FCHW,
            level=Level(told, SCHEDULE.sigma_at(told)),
            pts_s=float(chunk),
            captured_s=float(chunk),
            num_frames=shape[0],
        )


def noise_starter(recipe: Recipe, *, seed: int, max_chunks: int | None) -> NoiseStarter:
    return NoiseStarter(recipe, GEOMETRY, NOISE, seed=seed, max_chunks=max_chunks)


class NoClip:
    """What stands for a clip where nobody looks at pictures."""

    def has_arrived(self) -> bool:
        return True

    def device_s(self) -> float | None:
        return None

    def wait(self) -> Clip:
        raise AssertionError("there are no pictures here")


@dataclass
class LatentDecoder:
    """Keeps the clean latents of every chunk instead of drawing them."""

    latents: list[Tensor] = field(default_factory=list)
    pts_s: list[float] = field(default_factory=list)

    def decode(
        self, latents_FCHW: Tensor | None, *, num_frames: int, pts_s: float, captured_s: float
    ) -> NoClip:
        assert latents_FCHW is not None
        self.latents.append(latents_FCHW.clone())
        self.pts_s.append(pts_s)
        return NoClip()


@dataclass
class Stream:
    """An open session and what came of it."""

    session: Session
    decoder: LatentDecoder

    @property
    def latents(self) -> list[Tensor]:
        return self.decoder.latents


class SmallEngine:
    """An engine, and a view of everything that it is made of."""

    def __init__(
        self,
        policy: Policy,
        *,
        model: WanDiT | None = None,
        num_rows: int = 8,
        num_cells: int = 8,
        positions: Positions = Positions.ABSOLUTE,
        max_rows: int = 64,
        operations: Operations = PLAIN,
        cache: CachePolicy | None = None,
        sinks_and_ring: tuple[int, int] = (0, 0),
        runner: ForwardRunner | None = None,
        kind: KVFormat = KVFormat.FULL,
        residual_tokens: int = 0,
        num_past: tuple[int, ...] | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        """`cache` and `sinks_and_ring` are those of all recipes, where the cache must know them."""
        self.model = model or small_dit()
        self.model.use(operations)
        facts = self.model.facts
        shape = CacheShape(
            facts.num_blocks, num_rows, num_cells, facts.num_heads, facts.head_dim, GRID
        )
        adaptive = None
        if cache is not None and cache.sink_threshold is not None:
            adaptive = AdaptiveSinks(
                sinks=sinks_and_ring[0],
                ring=sinks_and_ring[1],
                threshold=cache.sink_threshold,
                num_layers=shape.num_layers,
                num_rows=num_rows,
                device=CPU,
            )
        self.cache = KVCache(
            shape,
            positions,
            device=CPU,
            dtype=torch.float32,
            operations=operations,
            moves_sinks=cache is not None and cache.moves_sinks,
            adaptive=adaptive,
            kind=kind,
            num_past=num_past,
        )
        residuals = Residuals(
            num_rows=num_rows,
            num_tokens=residual_tokens,
            dim=facts.num_heads * facts.head_dim,
            device=CPU,
            dtype=torch.float32,
        )
        self.stage = Stage(self.model, self.cache, device=CPU, runner=runner, residuals=residuals)
        self.slots = DenoiseSlots(facts, NOISE, operations.flow_step)
        self.clock = SimulatedClock()
        self.executor = LocalExecutor(self.stage, self.slots, lanes or InOrder(self.clock))
        self.rows = RowPool(num_rows)
        self.engine = Engine(
            self.executor,
            policy,
            rows=self.rows,
            max_rows=max_rows,
            clock=self.clock,
            metrics=Metrics(self.clock),
        )

    def prompt(self, number: int) -> PromptId:
        return self.engine.add_prompt(text(number))

    def open(
        self,
        recipe: Recipe,
        *,
        seed: int = 0,
        prompt: PromptId | None = None,
        negative_prompt: PromptId | None = None,
        starter: ChunkStarter | None = None,
        max_chunks: int | None = None,
        max_waiting_clips: int = 10_000,
    ) -> Stream:
        """Open a session; by default text-to-video under prompts 1 and 0, held by it alone."""
        decoder = LatentDecoder()
        mine = [self.prompt(1) if prompt is None else prompt]
        mine.append(self.prompt(0) if negative_prompt is None else negative_prompt)
        session = self.engine.open(
            recipe,
            make_starter=lambda: starter or noise_starter(recipe, seed=seed, max_chunks=max_chunks),
            decoder=decoder,
            seed=seed,
            prompt=mine[0],
            negative_prompt=mine[1],
            max_waiting_clips=max_waiting_clips,
        )
        for given, held in zip((prompt, negative_prompt), mine, strict=True):
            if given is None:
                self.engine.drop_prompt(held)
        return Stream(session, decoder)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.engine.tick()

    def finish(self, *streams: Stream, limit: int = 2_000) -> None:
        """Tick until these sessions have ended."""
        for _ in range(limit):
            if all(stream.session.has_ended for stream in streams):
                return
            self.engine.tick()
        raise AssertionError(f"not done after {limit} ticks")
