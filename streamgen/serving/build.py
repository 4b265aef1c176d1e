"""The composition root: the only place that turns settings into objects and knows everybody."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from streamgen.cache.window import Positions
from streamgen.clock import Clock
from streamgen.config.load import load_file, load_preset, load_table, settings_of
from streamgen.config.schema import StreamConfig
from streamgen.diffusion.guidance import Guidance, GuidanceMode
from streamgen.diffusion.noise import NoiseSource
from streamgen.diffusion.noise_control import NoiseController
from streamgen.diffusion.schedule import Ladder, NoiseSchedule
from streamgen.engine.batch import Level
from streamgen.engine.codec import StreamDecoder, StreamEncoder
from streamgen.engine.engine import Engine
from streamgen.engine.executor import LocalExecutor
from streamgen.engine.lanes import Lanes
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage
from streamgen.engine.start import StreamGeometry
from streamgen.errors import ConfigError
from streamgen.metrics.export import Metrics
from streamgen.models.base import VideoCodec
from streamgen.models.bundle import ModelBundle
from streamgen.models.codec_facts import CodecFacts
from streamgen.models.registry import load_bundle
from streamgen.models.wan.bundle import load_wan
from streamgen.models.wan.vae_config import WAN_21_VAE
from streamgen.ops.backend import DTYPES, Backend, choose_backend, free_bytes
from streamgen.ops.quantise import KVFormat
from streamgen.ops.rope import TokenGrid
from streamgen.scheduling.policy import Policy
from streamgen.serving.cache_policy import cache_policy
from streamgen.serving.deciding import make_engine
from streamgen.serving.grid import token_grid
from streamgen.serving.memory import Memory, check_fits, memory_of
from streamgen.serving.model_files import WanParts, wan_files, wan_parts
from streamgen.serving.noise_start import noise_controller
from streamgen.serving.ranges import check_strength
from streamgen.serving.speed import (
    attention_shape,
    make_residuals,
    savings_of,
    settle_heads,
    settle_lanes,
    settle_model,
    settle_operations,
    settle_runner,
    settle_weights,
)
from streamgen.serving.stages import Elsewhere, StagePlan, copied_to, make_cache
from streamgen.serving.threads import settle_threads
from streamgen.types import PictureSize

__all__ = ["settings_of"]  # and all that is defined here

logger = logging.getLogger(__name__)

FULL_STRENGTH_NOISE = 0.4  # on the condition at strength 1: the most that training puts on it


@dataclass(frozen=True, slots=True)
class Pipeline:
    """An engine with its model, and what opening a session needs."""

    config: StreamConfig
    """As it was given, but for what was settled at start: the number of threads."""
    bundle: ModelBundle
    backend: Backend
    lanes: Lanes
    engine: Engine
    recipe: Recipe
    schedule: NoiseSchedule
    geometry: StreamGeometry
    noise: NoiseSource
    metrics: Metrics
    clock: Clock
    decoding: VideoCodec[Any]
    """The bundle's codec, or a copy of it on the device that decodes."""
    decoding_lanes: Lanes

    @property
    def picture_size(self) -> PictureSize:
        return PictureSize(self.config.picture.height, self.config.picture.width)

    def new_encoder(self) -> StreamEncoder:
        """For one session's input."""
        backend = self.backend
        return StreamEncoder(
            self.bundle.codec, device=backend.device, dtype=backend.dtype, lanes=self.lanes,
            operations=backend.operations,
        )  # fmt: skip

    def new_decoder(self) -> StreamDecoder:
        """For one session's chunks."""
        return StreamDecoder(
            self.decoding, lanes=self.decoding_lanes, operations=self.backend.operations
        )


def build_pipeline(
    config: StreamConfig,
    *,
    clock: Clock,
    noise: NoiseSource,
    bundle: ModelBundle | None = None,
    over_ranks: Elsewhere | None = None,
    policy: Policy | None = None,
) -> Pipeline:
    """Load the model and put an engine around it; `bundle` and `policy` take the place of those
    of the settings. `over_ranks` runs the blocks elsewhere.

    Raises ConfigError for settings that the model cannot follow, CheckpointError for unusable
    weights, CapacityError if the KV cache does not fit into memory.
    """
    backend = choose_backend(config.model.device, config.model.dtype, config.model.num_threads)
    if bundle is None:
        if config.wan is not None and over_ranks is None:
            _check_memory(config, backend)
        bundle = _bundle(config, backend, None if over_ranks is None else range(0))
    height, width = bundle.codec.facts.latent_size(config.picture.height, config.picture.width)
    schedule = NoiseSchedule(config.denoise.shift)
    savings = savings_of(config.speed, bundle.dit.facts.num_blocks)
    recipe = replace(_recipe(config, schedule, bundle.codec.facts), savings=savings)
    metrics = Metrics(clock)
    num_rows = recipe.num_cache_rows * config.engine.sessions
    grid = token_grid(bundle, height, width)
    lanes = settle_lanes(backend, clock, overlaps=config.speed.overlap == "auto")
    if over_ranks is None:
        backend, executor = _local_executor(
            config, recipe, bundle, backend, grid, num_rows, clock, noise, lanes
        )
        if _tries_threads(config, backend):
            count = settle_threads(bundle.dit, backend, recipe, grid, clock)
            config = replace(config, model=replace(config.model, num_threads=count))
    else:
        plan = StagePlan(config, recipe, bundle.dit.facts, height, width)
        executor = over_ranks.make_executor(plan, backend)
    engine = make_engine(
        executor,
        policy or config.engine.policy,
        num_rows=num_rows,
        clock=clock,
        metrics=metrics,
    )
    geometry = StreamGeometry(
        codec=bundle.codec.facts,
        latent_height=height,
        latent_width=width,
        fps=config.picture.fps,
        device=backend.device,
        dtype=backend.dtype,
    )
    decoding, decoding_lanes = bundle.codec, lanes
    if over_ranks is not None and over_ranks.decode_device(backend) != backend.device:
        other = replace(backend, device=over_ranks.decode_device(backend))
        decoding = copied_to(decoding, other.device)
        decoding_lanes = settle_lanes(other, clock, overlaps=config.speed.overlap == "auto")
    return Pipeline(
        config, bundle, backend, lanes, engine, recipe, schedule, geometry, noise, metrics, clock,
        decoding, decoding_lanes,
    )  # fmt: skip


def memory_needed(config: StreamConfig, backend: Backend, parts: WanParts | None = None) -> Memory:
    """What a pipeline of a Wan preset takes; nothing is loaded. CheckpointError as `wan_parts`."""
    assert config.wan is not None
    recipe = _recipe(config, NoiseSchedule(config.denoise.shift), WAN_21_VAE.facts)
    item_bytes = backend.dtype.itemsize
    if config.model.dtype != "auto":
        item_bytes = DTYPES[config.model.dtype].itemsize
    return memory_of(
        config,
        recipe,
        parts or wan_parts(config.model, config.wan),
        item_bytes=item_bytes,
        has_gpu=backend.device.type == "cuda",
    )


def _check_memory(config: StreamConfig, backend: Backend) -> None:
    """CapacityError before weights load, where they and what they need do not fit."""
    assert config.wan is not None
    parts = wan_parts(config.model, config.wan)
    check_fits(
        replace(config, model=replace(config.model, dtype=str(backend.dtype).split(".")[1])),
        lambda changed: memory_needed(changed, backend, parts),
        free_bytes=free_bytes(backend.device),
        free_host_bytes=free_bytes(torch.device("cpu")),
        where=str(backend.device),
    )


def _tries_threads(config: StreamConfig, backend: Backend) -> bool:
    """Large models wait for no barrier, and compiled code has its number of threads inside."""
    is_open = config.model.num_threads == 0 and not config.speed.compile
    return is_open and backend.device.type == "cpu" and _is_small(config)


def _is_small(config: StreamConfig) -> bool:
    """Whether a CPU is busy between a forward's operations rather than in them."""
    return config.wan is None


def _local_executor(
    config: StreamConfig,
    recipe: Recipe,
    bundle: ModelBundle,
    backend: Backend,
    grid: TokenGrid,
    num_rows: int,
    clock: Clock,
    noise: NoiseSource,
    lanes: Lanes,
) -> tuple[Backend, LocalExecutor]:
    """The whole model in this process, on the fastest operations that there are for it."""
    facts, speed = bundle.dit.facts, config.speed
    num_past = settle_heads(bundle, speed.heads, config.family)
    settle_model(
        bundle, backend.device, linears=speed.linears, compiles=speed.compile, codec=speed.codec
    )
    is_small = _is_small(config) and not speed.compile
    if is_small and speed.linears == "full":
        settle_weights(bundle.dit, backend)
    records = speed.graphs == "auto" and recipe.cache.sink_threshold is None  # these count calls
    backend = replace(
        backend,
        operations=settle_operations(
            backend, attention_shape(recipe, facts, grid), clock, tries=speed.attention == "auto"
        ),
    )
    bundle.dit.use(backend.operations)
    kind = KVFormat(config.cache.dtype)
    blocks = range(facts.num_blocks)
    cache = make_cache(facts, recipe, backend, grid, num_rows, blocks, kind, num_past)
    stage = Stage(
        bundle.dit,
        cache,
        device=backend.device,
        loras=bundle.loras,
        runner=settle_runner(backend, records=records, is_small=is_small),
        residuals=make_residuals(recipe, facts, backend, grid, num_rows),
    )
    slots = DenoiseSlots(facts, noise, backend.operations.flow_step)
    return backend, LocalExecutor(stage, slots, lanes)


def load_config(
    preset: str | Path | Mapping[str, object], overrides: Sequence[str] = ()
) -> StreamConfig:
    """Settings of a preset by name, of a TOML file, or of `settings_of`; see config.load."""
    if isinstance(preset, Mapping):
        return load_table(preset, overrides, origin="the recording")
    if isinstance(preset, Path) or preset.endswith(".toml"):
        return load_file(Path(preset), overrides)
    return load_preset(preset, overrides)


def recipe_with_steps(pipeline: Pipeline, steps: int | None) -> Recipe:
    """The pipeline's recipe on a ladder of `steps` of its levels, evenly chosen from the noisiest.

    Raises ConfigError unless 1 <= steps <= the steps of the preset.
    """
    recipe = pipeline.recipe
    if steps is None:
        return recipe
    levels = recipe.num_steps
    if not 1 <= steps <= levels:
        raise ConfigError(f"{steps} steps are not in 1 to {levels}, the preset's; choose in there")
    return recipe.with_steps(steps)


def video_start(
    pipeline: Pipeline, strength: float | None, recipe: Recipe
) -> tuple[NoiseController, float | None]:
    """The noise controller of a new video-to-video session, and its condition noise.

    `strength` in [0, 1] replaces what the preset says. A model that reads its input beside the
    noise blurs that input by it; for any other it is the noise level at the start.
    """
    config = pipeline.config.noise_control
    has_condition = pipeline.bundle.dit.facts.condition_channels > 0
    start_sigma, condition_noise = config.start_sigma, config.condition_noise
    if strength is not None:
        check_strength(strength)
        if has_condition:
            condition_noise = strength * FULL_STRENGTH_NOISE
        else:
            start_sigma = strength
    if config.kind == "scenes" and not recipe.can_reanchor:
        raise ConfigError(
            'noise_control.kind = "scenes" has no effect on a cache that is recomputed or whose '
            'sinks adapt themselves; use "fixed"'
        )
    controller = noise_controller(config.kind, start_sigma, recipe.ladder)
    return controller, condition_noise if has_condition else None


def _bundle(config: StreamConfig, backend: Backend, blocks: range | None) -> ModelBundle:
    device, dtype = backend.device, backend.dtype
    if config.wan is None:
        weights = config.model.weights
        return load_bundle(config.family, weights, device=device, dtype=dtype, blocks=blocks)
    files = wan_files(config.model, config.wan)
    is_full = config.speed.linears == "full"
    dit_device = None if is_full else torch.device("cpu")  # whole, it may be more than device has
    return load_wan(files, device=device, dtype=dtype, blocks=blocks, dit_device=dit_device)


def _recipe(config: StreamConfig, schedule: NoiseSchedule, codec: CodecFacts) -> Recipe:
    denoise, cache = config.denoise, config.cache
    if denoise.warp:
        ladder = Ladder.warped(schedule, [int(timestep) for timestep in denoise.timesteps])
    else:
        ladder = Ladder.plain(schedule, denoise.timesteps)
    is_alone = cache.first_chunk == "alone"
    leads = is_alone and codec.first_frame_is_single
    return Recipe(
        ladder=ladder,
        mode=CacheMode(cache.mode),
        context_level=Level(cache.context_timestep, schedule.sigma_at(cache.context_timestep)),
        sinks=cache.sinks,
        ring=cache.ring,
        positions=Positions(cache.positions),
        chunk_frames=denoise.chunk_frames,
        first_chunk_frames=denoise.chunk_frames + leads,
        first_chunk_is_alone=is_alone and ladder.num_steps > 1,
        guidance=Guidance(
            GuidanceMode(denoise.guidance), denoise.guidance_scale, denoise.guidance_delta
        ),
        cache=cache_policy(cache),
        later_steps=tuple(denoise.timesteps.index(one) for one in denoise.later_timesteps),
        lag=cache.cascade_lag,
    )
