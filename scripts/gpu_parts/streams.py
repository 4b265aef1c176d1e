"""Whole streams of random weights at real size: encode, DiT, decode, hand-over."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.rows import RowPool
from streamgen.cache.window import Positions
from streamgen.clock import MonotonicClock
from streamgen.diffusion.flow import mix_input
from streamgen.diffusion.guidance import Guidance
from streamgen.diffusion.noise import SeededNoise
from streamgen.diffusion.schedule import Ladder, NoiseSchedule
from streamgen.engine.batch import Level, Started
from streamgen.engine.codec import StreamDecoder, StreamEncoder
from streamgen.engine.engine import Engine
from streamgen.engine.executor import LocalExecutor
from streamgen.engine.forward import ForwardRunner
from streamgen.engine.lanes import Lanes, Stretch
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.session import ChunkStarter, Session
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage
from streamgen.engine.start import NoiseStarter, StreamGeometry
from streamgen.metrics.export import Metrics
from streamgen.models.quantised import Linears, quantise_linears
from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.tae import TaeCodec, TaeConfig
from streamgen.ops.operations import Operations
from streamgen.ops.quantise import KVFormat
from streamgen.ops.transfer import to_device
from streamgen.scheduling.policy import StreamBatch
from streamgen.types import Clip

FPS = 16.0


@dataclass(frozen=True, slots=True)
class StreamCase:
    """One stream to measure."""

    model: WanConfig
    codec: TaeConfig
    height: int
    width: int
    timesteps: tuple[float, ...]
    mode: CacheMode
    chunk_frames: int
    sinks: int
    ring: int
    has_input: bool
    linears: Linears
    kv: KVFormat = KVFormat.FULL


class EncodedStarter:
    """Video-to-video over one clip again and again: encoded anew for every chunk."""

    waiting_clips = 1

    def __init__(
        self,
        recipe: Recipe,
        geometry: StreamGeometry,
        encoder: StreamEncoder,
        level: Level,
        encodings: list[Stretch],
    ) -> None:
        """`encodings` gets what encoding takes of every chunk, where the device does it alone."""
        self._encodings = encodings
        self._recipe, self._geometry = recipe, geometry
        self._encoder, self._level = encoder, level
        self._noise = SeededNoise()
        self._pixels: dict[int, np.ndarray] = {}

    def ready(self) -> bool:
        return True

    def has_ended(self) -> bool:
        return False

    def drop(self, num_clips: int) -> None:
        """There is always the same clip."""

    def start(self, chunk: int) -> Started:
        geometry = self._geometry
        count = geometry.num_pixel_frames(self._recipe, chunk)
        stride = geometry.codec.spatial_stride
        if count not in self._pixels:
            size = (count, geometry.latent_height * stride, geometry.latent_width * stride, 3)
            drawn = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
            self._pixels[count] = drawn
        clip = Clip(self._pixels[count], 0.0, 0.0)
        clean_FCHW = self._encoder.encode(self._encoder.pixels(clip))
        if self._encoder.encoding is not None:
            self._encodings.append(self._encoder.encoding)
        noise_FCHW = self._noise.noise(0, chunk, 0, tuple(clean_FCHW.shape))
        noise_FCHW = to_device(noise_FCHW, clean_FCHW.device)
        return Started(
            latents_FCHW=mix_input(clean_FCHW, noise_FCHW, self._level.sigma),
            condition_FCHW=None, endpoint_FCHW=None, level=self._level,
            pts_s=float(chunk), captured_s=0.0, num_frames=count,
        )  # fmt: skip


@torch.inference_mode()
def random_model(config: WanConfig, *, device: torch.device, dtype: torch.dtype) -> WanDiT:
    """Made on the device, in its precision, without a copy anywhere else."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return WanDiT(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


class MeasuredStream:
    """An engine with one session, and what its chunks take."""

    def __init__(
        self,
        case: StreamCase,
        model: WanDiT,
        *,
        operations: Operations,
        runner: ForwardRunner,
        lanes: Lanes,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.case, self.clock, noise = case, MonotonicClock(), SeededNoise()
        self.linears_replaced = quantise_linears(model, case.linears)
        model.use(operations)
        with device:
            codec = TaeCodec(case.codec).eval().requires_grad_(False).to(dtype)
        codec.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        schedule = NoiseSchedule(5.0)
        recipe = Recipe(
            ladder=Ladder.plain(schedule, case.timesteps), mode=case.mode,
            context_level=Level(0.0, 0.0), sinks=case.sinks, ring=case.ring,
            positions=Positions.WINDOW, chunk_frames=case.chunk_frames,
            first_chunk_frames=case.chunk_frames, first_chunk_is_alone=False, guidance=Guidance(),
        )  # fmt: skip
        height, width = codec.facts.latent_size(case.height, case.width)
        facts, num_rows = model.facts, recipe.num_cache_rows
        shape = CacheShape(
            facts.num_blocks, num_rows, case.sinks + case.ring, facts.num_heads, facts.head_dim,
            model.grid(height, width),
        )  # fmt: skip
        cache = KVCache(
            shape, Positions.WINDOW, device=device, dtype=dtype, operations=operations, kind=case.kv
        )
        stage = Stage(model, cache, device=device, runner=runner)
        slots = DenoiseSlots(facts, noise, operations.flow_step)
        executor = LocalExecutor(stage, slots, lanes)
        self._metrics = Metrics(self.clock)
        self.engine = Engine(
            executor, StreamBatch(), rows=RowPool(num_rows), max_rows=num_rows, clock=self.clock,
            metrics=self._metrics,
        )  # fmt: skip
        geometry = StreamGeometry(codec.facts, height, width, FPS, device, dtype)
        self.frames_a_chunk = geometry.num_pixel_frames(recipe, 1)
        self.cache_bytes = shape.size_bytes(dtype, case.kv)
        self.recipe, self.grid = recipe, shape.grid
        self._geometry, self._level = geometry, case.timesteps[0]
        self._encoder = lambda: StreamEncoder(
            codec, device=device, dtype=dtype, lanes=lanes, operations=operations
        )
        self._decoder = lambda: StreamDecoder(codec, lanes=lanes, operations=operations)
        self._noise, self._schedule = noise, schedule
        text_MD = torch.randn(min(64, facts.text_len), facts.text_dim, device=device).to(dtype)
        self._prompts = [self.engine.add_prompt(text_MD) for _ in range(2)]
        self._encodings: list[Stretch] = []
        self._session = self._open()

    def _open(self) -> Session:
        geometry, recipe = self._geometry, self.recipe
        starter: ChunkStarter
        if self.case.has_input:
            level = Level(self._level, self._schedule.sigma_at(self._level))
            starter = EncodedStarter(recipe, geometry, self._encoder(), level, self._encodings)
        else:
            starter = NoiseStarter(recipe, geometry, self._noise, seed=0, max_chunks=None)
        return self.engine.open(
            recipe, make_starter=lambda: starter, decoder=self._decoder(), seed=0,
            prompt=self._prompts[0], negative_prompt=self._prompts[1], max_waiting_clips=2,
        )  # fmt: skip

    def next_clip(self) -> Clip:
        """One chunk's pictures, on the host; the next chunks are under way meanwhile."""
        session = self._session
        while not session.clips:
            self.engine.tick()
            if session.failure is not None:
                raise session.failure
        return session.clips.popleft().wait()

    def run(self, *, warm_up: int, chunks: int, until_s: float) -> dict[str, Any]:
        """Seconds a chunk after a warm-up, then to the first frame of another session.

        Stops at `until_s` of the clock, and says how far it came; raises TimeoutError if that is
        in the warm-up already.
        """
        first_s = self._first_frame_s()
        for index in range(warm_up):
            self.next_clip()
            if self.clock.now() > until_s:
                raise TimeoutError(f"cut off after {index + 1} of {warm_up} chunks of warm-up")
        self._encodings.clear()
        times: list[float] = []
        while len(times) < chunks and (self.clock.now() < until_s or len(times) < 2):
            before_s = self.clock.now()
            self.next_clip()
            times.append(self.clock.now() - before_s)
        cut_off = {"cut_off": f"{len(times)} chunks"} if len(times) < chunks else {}
        encode_s = [took_s for one in self._encodings if (took_s := one.seconds()) is not None]
        ticks = self._metrics.summary("streamgen_tick_seconds", "").percentiles()
        self.engine.close(self._session)
        self._session = self._open()
        return cut_off | {
            "first_frame_cold_s": first_s,
            "first_frame_warm_s": self._first_frame_s(),
            "chunks": len(times),
            "chunk_ms": 1e3 * statistics.median(times),
            "chunk_p99_ms": 1e3 * float(np.percentile(times, 99)),
            "frames_per_second": self.frames_a_chunk / (sum(times) / len(times)),
            "parts_ms": {
                "encode a chunk": 1e3 * statistics.median(encode_s) if encode_s else None,
                "denoise a tick": None if ticks.p50 is None else 1e3 * ticks.p50,
                "decode a chunk": 1e3 * self.engine.latency.decode.predict(self.frames_a_chunk),
            },
        }

    def _first_frame_s(self) -> float:
        began_s = self.clock.now()
        self.next_clip()
        return self.clock.now() - began_s
