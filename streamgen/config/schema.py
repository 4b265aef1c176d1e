"""The settings of one pipeline, checked once, when they are made; afterwards trusted.

Every section checks its own ranges, `StreamConfig` what concerns two sections. Each complaint is
one line: the key as it is written in TOML, its value, what is allowed, what to do. A setting that
cannot take effect is an error, not a warning. Knows no models: `family` and `weights` are names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from streamgen.config.cache_rules import (
    check_cache,
    check_cache_and_chunks,
    check_cascade,
    check_joint,
)
from streamgen.config.complaints import check_range as _check_range
from streamgen.config.complaints import shown as _shown
from streamgen.config.complaints import wrong as _wrong
from streamgen.config.ladder_rules import check_ladder, check_later
from streamgen.config.model_files import WanFilesConfig
from streamgen.config.speed import SETTLED_BY_HARDWARE, SpeedConfig, check_speed
from streamgen.errors import ConfigError

NoiseControlKind = Literal["fixed", "motion", "robust", "scenes"]
Task = Literal["text-to-video", "video-to-video"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which weights, where, in which precision."""

    weights: str  # "package" for weights inside the installation, else a path to a file or folder
    device: Literal["auto", "cpu", "cuda"]  # auto: cuda where there is one, else cpu
    dtype: Literal["auto", "float32", "bfloat16", "float16"]  # auto: what the device is fast at
    num_threads: int  # CPU threads, 0 to 1024; 0: as many as a trial at start finds best, for large
    #                   models one a core

    def __post_init__(self) -> None:
        if not self.weights:
            raise _wrong("model.weights", self.weights, "must not be empty", 'write "package"')
        _check_range("model.num_threads", self.num_threads, 0, 1024)


@dataclass(frozen=True, slots=True)
class PictureConfig:
    """Size and rate of the pictures that come out."""

    height: int  # pixels, 16 to 8192, even; the model may ask for a coarser grid
    width: int  # pixels, 16 to 8192, even; the model may ask for a coarser grid
    fps: float  # frames a second, 1 to 240

    def __post_init__(self) -> None:
        for key, value in (("picture.height", self.height), ("picture.width", self.width)):
            _check_range(key, value, 16, 8192)
            if value % 2:
                raise _wrong(key, value, "must be even", f"use {value + 1}")
        _check_range("picture.fps", self.fps, 1, 240)


@dataclass(frozen=True, slots=True)
class DenoiseConfig:
    """The ladder of noise levels, what walks down it, and guidance."""

    shift: float  # of the flow-matching table, 0.01 to 100; 1 is none, above 1 means more noise
    timesteps: tuple[float, ...]  # strictly falling, each in (0, 1000], one a step
    warp: bool  # true: `timesteps` name entries of the shifted table; false: they are timesteps
    chunk_frames: int  # latent frames denoised together, 1 to 64
    guidance: Literal["none", "self", "initialize", "full"]  # how the unconditional side is found
    guidance_scale: float  # push towards the prompt, 0 to 50; 1 is none: for guidance "none" only
    guidance_delta: float  # scale of the virtual residual, 0 to 2; 1 for "none" and "full"
    later_timesteps: tuple[float, ...] = ()  # those that chunks after the first take, from the
    #                        first of `timesteps` on; empty: all (modes clean and recompute only)

    def __post_init__(self) -> None:
        _check_range("denoise.shift", self.shift, 0.01, 100)
        check_ladder(self.timesteps, self.later_timesteps)
        if self.warp and any(timestep % 1 for timestep in self.timesteps):
            raise _wrong(
                "denoise.timesteps",
                list(self.timesteps),
                "must be whole numbers with denoise.warp = true, for they name table entries",
                "round them or set denoise.warp = false",
            )
        _check_range("denoise.chunk_frames", self.chunk_frames, 1, 64)
        self._check_guidance()

    def _check_guidance(self) -> None:
        if self.guidance == "none":
            if self.guidance_scale != 1:
                raise _wrong(
                    "denoise.guidance_scale",
                    self.guidance_scale,
                    'has no effect with denoise.guidance = "none", must be 1',
                    "set it to 1 or choose a guidance",
                )
        elif self.guidance_scale == 1:
            raise _wrong(
                "denoise.guidance_scale",
                self.guidance_scale,
                f'leaves denoise.guidance = "{self.guidance}" without effect',
                'raise it or set denoise.guidance = "none"',
            )
        _check_range("denoise.guidance_scale", self.guidance_scale, 0, 50)
        if self.guidance in ("none", "full") and self.guidance_delta != 1:
            raise _wrong(
                "denoise.guidance_delta",
                self.guidance_delta,
                f'has no effect with denoise.guidance = "{self.guidance}", must be 1',
                'set it to 1 or choose guidance "self" or "initialize"',
            )
        _check_range("denoise.guidance_delta", self.guidance_delta, 0, 2)


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """What a chunk attends to."""

    mode: Literal["clean", "cascaded", "per_step", "recompute", "joint"]  # what a chunk reads of
    #   earlier ones: clean; as fresh as it is when each trails the one before it by some passes; as
    #   they were at its step; clean latents run anew before it; or a window of chunks at rising
    #   noise that attend to each other, over a row of clean frames (text-to-video only)
    sinks: int  # latent frames never evicted, 0 to 256; except with mode "recompute", a multiple
    ring: int  # latent frames that roll, the current chunk included, 1 to 1024, likewise a multiple
    positions: Literal["absolute", "window"]  # rotary positions: of the stream, or of the window
    context_timestep: float  # noise of the pass that writes the clean cache, 0 to below 1000
    first_chunk: Literal["together", "alone"]  # alone: it walks all steps before others start, and
    #                                            its last row is copied to all rows (per_step only)
    sink_kind: Literal["fixed", "ema", "adaptive"] = (
        "fixed"  # stay as they are, take over what leaves
    )
    #                                       the ring, or are replaced by frames that resemble none
    sink_decay: float = 0.0  # "ema": share that a sink keeps of itself, above 0 to below 1
    sink_threshold: float = 0.0  # "adaptive": cosine similarity under which, above 0 to 1
    sink_place: Literal["own", "before", "within", "ahead"] = "own"  # position of sinks: their own,
    #     just before the ring, at most sink_reach behind the newest, sink_reach ahead of the chunk
    sink_reach: int = 0  # latent frames, for "within" and "ahead"
    refresh: int = 0  # absolute position at which positions are set back to just after the sinks;
    #                   0: never
    on_prompt: Literal["keep", "flush", "recache"] = "keep"  # a new prompt leaves the cache alone,
    #                        empties the ring, or has it computed anew from the latents (clean only)
    flush_keeps: int = 0  # "flush": newest latent frames that stay beside the sinks
    dtype: Literal["full", "fp8", "int8", "int4"] = "full"  # of keys and values: as the model
    #                                       computes them, or 8 or 4 bits and a scale a head
    cascade_lag: int = 1  # "cascaded": passes by which a chunk trails the one before it, 1 to steps

    def __post_init__(self) -> None:
        _check_range("cache.sinks", self.sinks, 0, 256)
        _check_range("cache.ring", self.ring, 1, 1024)
        check_cache(self)
        if not 0 <= self.context_timestep < 1000:
            raise _wrong(
                "cache.context_timestep", self.context_timestep, "must be in [0, 1000)", "use 0"
            )
        if self.mode == "per_step" and self.context_timestep != 0:
            raise _wrong(
                "cache.context_timestep",
                self.context_timestep,
                'has no effect with cache.mode = "per_step", must be 0',
                'set it to 0 or cache.mode = "clean"',
            )
        if self.mode != "per_step" and self.first_chunk == "alone":
            raise _wrong(
                "cache.first_chunk",
                self.first_chunk,
                f'has no effect with cache.mode = "{self.mode}", which has no row for each step',
                'set it to "together" or cache.mode = "per_step"',
            )


@dataclass(frozen=True, slots=True)
class NoiseControlConfig:
    """How much noise a chunk of an input video starts from; text starts from noise alone."""

    kind: NoiseControlKind  # motion: more movement in the input, lower start sigma; robust: the
    #                         same whatever the light does, begun anew at a cut; scenes: as fixed,
    #                         begun anew at a cut
    start_sigma: float  # noise level at the start, above 0 to 1; 1 for text-to-video
    condition_noise: float  # noise level put on a condition latent, 0 to 1; 0 for text-to-video

    def __post_init__(self) -> None:
        if not 0 < self.start_sigma <= 1:
            raise _wrong(
                "noise_control.start_sigma", self.start_sigma, "must be in (0, 1]", "use 0.8"
            )
        _check_range("noise_control.condition_noise", self.condition_noise, 0, 1)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How work is scheduled, for how many sessions, and how far generation may run ahead."""

    policy: Literal["stream_batch", "sequential", "slo_aware"]  # which chunks run in a tick
    sessions: int  # sessions that cache rows are reserved for, 1 to 1024
    seed: int  # of all noise, 0 to 2**63 - 1
    output_queue_clips: int  # finished clips that may wait for the sink, 1 to 1024

    def __post_init__(self) -> None:
        _check_range("engine.sessions", self.sessions, 1, 1024)
        _check_range("engine.seed", self.seed, 0, 2**63 - 1)
        _check_range("engine.output_queue_clips", self.output_queue_clips, 1, 1024)


@dataclass(frozen=True, slots=True)
class PromptsConfig:
    """How words reach the model; may be left out."""

    negative: str = ""  # what to keep away from, where denoise.guidance asks the model for it
    blend: Literal["linear", "slerp"] = "linear"  # of mixes and transitions; slerp: along the arc
    transition_chunks: int = 0  # within how many chunks a new prompt takes over, 0 to 1000

    def __post_init__(self) -> None:
        _check_range("prompts.transition_chunks", self.transition_chunks, 0, 1000)


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What each session is promised with engine.policy = "slo_aware", and accepts on the way down.

    The one section that may be left out, or hold only some of its keys.
    """

    first_frame_s: float = 5.0  # from opening a session to its first picture, 0.001 to 3600
    latency_s: float = 0.0  # of a live input, from capture to hand-over, 0 to 3600; 0: none asked
    weight: float = 1.0  # 1 to 100; a heavier session goes down the ladder later
    min_steps: int = 1  # fewest denoise steps accepted, 0 to 1000; 0: no fewer than the preset's
    min_fps: float = 0.0  # lowest rate of drawn pictures accepted, 0 to 240; 0: picture.fps
    accepts_still: bool = False  # whether still clips of a live input may be held undrawn

    def __post_init__(self) -> None:
        _check_range("service.first_frame_s", self.first_frame_s, 0.001, 3600)
        _check_range("service.latency_s", self.latency_s, 0, 3600)
        _check_range("service.weight", self.weight, 1, 100)
        _check_range("service.min_steps", self.min_steps, 0, 1000)
        _check_range("service.min_fps", self.min_fps, 0, 240)


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Everything that `serving.build` needs to know to make one pipeline."""

    description: str  # one sentence for people: model, task, hardware
    family: str  # name of a model family in the registry
    task: Task  # what a chunk starts from: noise, or an input video
    model: ModelConfig
    picture: PictureConfig
    denoise: DenoiseConfig
    cache: CacheConfig
    noise_control: NoiseControlConfig
    engine: EngineConfig
    wan: WanFilesConfig | None = None  # for family "wan" only, which needs it
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    speed: SpeedConfig = SETTLED_BY_HARDWARE  # may be left out: the hardware settles it
    service: ServiceConfig = field(default_factory=ServiceConfig)

    def __post_init__(self) -> None:
        if not self.description.strip():
            raise _wrong(
                "description", self.description, "must not be empty", "say model, task, hardware"
            )
        if not self.family:
            raise _wrong("family", self.family, "must not be empty", 'write "tiny"')
        if (self.family == "wan") != (self.wan is not None):
            raise ConfigError(
                'section [wan] and family = "wan" need each other; '
                f"{'remove the section' if self.wan else 'add the section'}"
            )
        if self.prompts.negative and self.denoise.guidance not in ("initialize", "full"):
            raise _wrong(
                "prompts.negative",
                self.prompts.negative,
                f'has no effect with denoise.guidance = "{self.denoise.guidance}"',
                'leave it out or set denoise.guidance = "full" and a guidance_scale',
            )
        self._check_cache_fits_chunks()
        check_speed(self.speed, cache_mode=self.cache.mode, num_steps=len(self.denoise.timesteps))
        self._check_service()
        self._check_start()

    def _check_cache_fits_chunks(self) -> None:
        chunk = self.denoise.chunk_frames
        for key, value in (("cache.sinks", self.cache.sinks), ("cache.ring", self.cache.ring)):
            if value % chunk and self.cache.mode != "recompute":
                raise _wrong(
                    key,
                    value,
                    f"must be a multiple of denoise.chunk_frames = {chunk}",
                    f"use {(value // chunk + 1) * chunk}",
                )
        check_cache_and_chunks(self.cache, chunk)
        check_joint(
            self.cache,
            num_steps=len(self.denoise.timesteps),
            chunk_frames=chunk,
            task=self.task,
            guidance=self.denoise.guidance,
            saves_work=self.speed.saves_work,
        )
        check_cascade(self.cache, len(self.denoise.timesteps), self.denoise.guidance)
        last = self.denoise.timesteps[-1]
        if self.cache.context_timestep >= last:
            raise _wrong(
                "cache.context_timestep",
                self.cache.context_timestep,
                f"must be below the last of denoise.timesteps = {last}",
                "use 0",
            )
        is_single = len(self.denoise.timesteps) == 1
        if self.cache.first_chunk == "alone" and is_single and self.wan is None:
            raise _wrong(
                "cache.first_chunk",
                self.cache.first_chunk,
                "has no effect with a single step in denoise.timesteps",
                'set it to "together"',
            )
        check_later(
            self.denoise.later_timesteps,
            cache_mode=self.cache.mode,
            reuses=bool(self.speed.reuse_steps),
        )

    def _check_service(self) -> None:
        if self.engine.policy != "slo_aware" and self.service != ServiceConfig():
            raise ConfigError(
                f'[service] has no effect with engine.policy = "{self.engine.policy}"; '
                f'leave it out or set engine.policy = "slo_aware"'
            )
        if self.service.min_fps > self.picture.fps:
            raise _wrong(
                "service.min_fps",
                self.service.min_fps,
                f"is above picture.fps = {self.picture.fps:g}",
                "lower it",
            )
        if self.service.latency_s and self.task == "text-to-video":
            raise _wrong(
                "service.latency_s",
                self.service.latency_s,
                'has no effect with task = "text-to-video", must be 0',
                "set it to 0",
            )

    def _check_start(self) -> None:
        if self.task == "video-to-video":
            return
        if self.denoise.guidance == "self":
            raise _wrong(
                "denoise.guidance",
                self.denoise.guidance,
                'needs an input video, task is "text-to-video"',
                'use "initialize", "full" or "none"',
            )
        for key, value, only in (
            ("kind", self.noise_control.kind, "fixed"),
            ("start_sigma", self.noise_control.start_sigma, 1.0),
            ("condition_noise", self.noise_control.condition_noise, 0.0),
        ):
            if value != only:
                raise _wrong(
                    f"noise_control.{key}",
                    value,
                    f'has no effect with task = "text-to-video", must be {_shown(only)}',
                    f'set it to {_shown(only)} or task = "video-to-video"',
                )
