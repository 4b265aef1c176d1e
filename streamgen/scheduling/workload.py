"""What comes in: when sessions arrive and leave, what they ask for, how the hardware changes.

A workload file is TOML; every key may be left out but `sessions` or `arrivals_a_minute`:

    hardware = "h100-1.3b-tiny-codec"               gpus = 1
    seconds = 120               seed = 0
    sessions = 6                arrivals_a_minute = 0                   stay_s = 0     burst = 1
    fps = [16]                  latency_s = 0.6     first_frame_s = 2.0
    min_steps = 1               min_fps = 8         accepts_still = false
    still_share = 0             viewer_rate = 1     noise = 0.02
    slowdown = 1                slow_from_s = 0     slow_until_s = 0
"""

from __future__ import annotations

import difflib
import random
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from streamgen.errors import ConfigError
from streamgen.scheduling.lane import Demand
from streamgen.scheduling.latency import Costs
from streamgen.scheduling.profiles import HardwareProfile, profile_of
from streamgen.scheduling.service import (
    CodecKind,
    PipelineFacts,
    Quality,
    ServiceLevel,
    check_service,
    quality_ladder,
)

MAX_SESSIONS = 10_000


@dataclass(frozen=True, slots=True)
class Workload:
    """One evening of sessions on one kind of hardware. Raises ConfigError for what cannot be."""

    hardware: str = "h100-1.3b-tiny-codec"
    gpus: int = 1
    seconds: float = 120.0
    seed: int = 0
    sessions: int = 0  # there from the start
    arrivals_a_minute: float = 0.0  # Poisson, beside them
    burst: int = 1  # sessions that arrive together
    stay_s: float = 0.0  # mean of an exponential stay; 0: to the end
    fps: tuple[float, ...] = (16.0,)  # sessions take turns
    latency_s: float = 0.6  # 0: text-to-video, without stalls
    first_frame_s: float = 2.0
    min_steps: int = 1
    min_fps: float = 0.0
    accepts_still: bool = False
    still_share: float = 0.0  # of clips of an input that look as the one before
    viewer_rate: float = 1.0  # below 1: viewers take clips more slowly than they play
    noise: float = 0.02  # relative, of every measured second
    slowdown: float = 1.0  # factor on all costs meanwhile
    slow_from_s: float = 0.0
    slow_until_s: float = 0.0

    def __post_init__(self) -> None:
        ranges = (
            ("gpus", self.gpus, 1, 4096),
            ("seconds", self.seconds, 1, 1e6),
            ("sessions", self.sessions, 0, MAX_SESSIONS),
            ("arrivals_a_minute", self.arrivals_a_minute, 0, 1e5),
            ("burst", self.burst, 1, 1000),
            ("stay_s", self.stay_s, 0, 1e6),
            ("latency_s", self.latency_s, 0, 3600),
            ("still_share", self.still_share, 0, 1),
            ("viewer_rate", self.viewer_rate, 0.01, 1),
            ("noise", self.noise, 0, 0.5),
            ("slowdown", self.slowdown, 0.01, 100),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise ConfigError(f"{name} = {value:g} must be in [{low:g}, {high:g}]; change it")
        if not self.sessions and not self.arrivals_a_minute:
            raise ConfigError("nobody comes; set sessions or arrivals_a_minute above 0")
        if not self.fps:
            raise ConfigError("fps = [] names no rate; write fps = [16]")
        if self.accepts_still and not self.latency_s:
            raise ConfigError("accepts_still needs latency_s above 0: only an input can be still")
        for rate in self.fps:
            check_service(self.service(rate), self.facts(rate))

    @property
    def profile(self) -> HardwareProfile:
        return profile_of(self.hardware)

    def facts(self, fps: float) -> PipelineFacts:
        """What a pipeline of the profile's model can do at a rate."""
        profile = self.profile
        return PipelineFacts(
            fps=fps,
            num_steps=profile.steps,
            clip_frames=profile.clip_frames,
            takes_video=self.latency_s > 0,
            has_tiny_codec=profile.has_tiny_codec,
            smallest_picture=profile.smallest_picture,
        )

    def service(self, fps: float) -> ServiceLevel:
        """What a session of a rate asks for."""
        return ServiceLevel(
            fps=fps,
            first_frame_s=self.first_frame_s,
            latency_s=self.latency_s or None,
            min_steps=min(self.min_steps, self.profile.steps),
            min_fps=min(self.min_fps, fps),
            accepts_still=self.accepts_still,
        )

    def rungs(self, fps: float) -> tuple[Demand, ...]:
        """What a session of a rate needs on each rung, best first."""
        facts, service = self.facts(fps), self.service(fps)
        rungs = (demand_of(quality, facts) for quality in quality_ladder(service, facts))
        latency_s = service.latency_s
        return tuple(one for one in rungs if latency_s is None or one.collect_s < latency_s)

    def costs(self, costs: Costs, now_s: float) -> Costs:
        """What work costs at a time."""
        if self.slow_from_s <= now_s < self.slow_until_s:
            return costs.times(self.slowdown)
        return costs

    def arrivals(self) -> list[tuple[float, float, float]]:
        """(arrival, departure, rate) of every session, in the order of arrival."""
        draw = random.Random(self.seed)
        times = [draw.random() for _ in range(self.sessions)]
        now_s = 0.0
        while self.arrivals_a_minute and now_s < self.seconds:
            now_s += draw.expovariate(self.arrivals_a_minute / 60 / self.burst)
            times.extend([now_s] * self.burst)
        came = [
            (
                time_s,
                time_s + draw.expovariate(1 / self.stay_s) if self.stay_s else self.seconds,
                self.fps[index % len(self.fps)],
            )
            for index, time_s in enumerate(times)
            if time_s < self.seconds
        ]
        return sorted(came)


def demand_of(quality: Quality, facts: PipelineFacts) -> Demand:
    """What a stream-batch session (a cache row a step) needs on one rung."""
    divisor = quality.rate_divisor
    return Demand(
        period_s=facts.clip_frames * divisor / facts.fps,
        collect_s=(facts.clip_frames * divisor - 1) / facts.fps if facts.takes_video else 0.0,
        steps=quality.num_steps,
        context_passes=0,
        rows=1,
        frames=1 / quality.picture_divisor**2,
        in_flight=quality.num_steps,
        clip_frames=facts.clip_frames,
        cache_rows=quality.num_steps,
        tiny_codec=quality.codec is CodecKind.TINY,
        skips_still=quality.skips_still,
        units=divisor,
    )


def load_workload(path: Path) -> Workload:
    """Read a workload file. Raises ConfigError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; correct that line") from error
    return workload_of(table, origin=path.name)


def workload_of(table: dict[str, object], *, origin: str) -> Workload:
    """A workload of a table's keys; ConfigError for an unknown or mistyped one."""
    defaults = {field.name: field.default for field in fields(Workload)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            remedy = f"did you mean {near[0]}?" if near else "remove it"
            raise ConfigError(f"{origin}: unknown key {key}; {remedy}")
        values[key] = _typed(key, value, defaults[key], origin)
    try:
        return Workload(**values)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _typed(key: str, value: object, like: object, origin: str) -> object:
    is_array = isinstance(like, tuple)
    if is_array and isinstance(value, list):
        rates = cast("list[object]", value)
        return tuple(_typed(key, one, 1.0, origin) for one in rates)
    if isinstance(like, float) and type(value) is int:
        return float(value)
    if type(value) is not type(like):
        shown = "an array" if is_array else f"a {type(like).__name__}"
        raise ConfigError(f"{origin}: {key} must be {shown}, found {value!r}; change its type")
    return value
