"""What comes in: when sessions arrive and leave, what they ask for, how the hardware changes.

A workload file is TOML; every key may be left out but `sessions` or `arrivals_a_minute`:

    hardware = "h100-1.3b-tiny-codec"               gpus = 1
    seconds = 120               seed = 0            noise = 0.02
    sessions = 6                arrivals_a_minute = 0                   stay_s = 0     burst = 1
    fps = [16]                  latency_s = 0.6     first_frame_s = 2.0
    min_steps = 1               min_fps = 8         accepts_still = false
    still_share = 0             viewer_rate = 1
    slowdown = 1                slow_from_s = 0     slow_until_s = 0

    [[kinds]]                   # instead of several fps: sessions take turns through the kinds
    fps = 16                    latency_s = 0.3     steps = 1           weight = 2
    [[kinds]]                   # what a kind leaves out is as above
    fps = 16                    latency_s = 0       chunk_frames = 3
"""

from __future__ import annotations

import difflib
import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from streamgen.errors import ConfigError
from streamgen.scheduling.kinds import Kind
from streamgen.scheduling.latency import Costs
from streamgen.scheduling.profiles import HardwareProfile, profile_of

MAX_SESSIONS = 10_000
KIND_KEYS = frozenset(one.name for one in fields(Kind))


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
    kinds: tuple[Kind, ...] = ()  # sessions take turns; () is one a rate, of the next seven
    fps: tuple[float, ...] = (16.0,)
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
        for kind in self.all_kinds:
            kind.service(self.profile)

    @property
    def profile(self) -> HardwareProfile:
        return profile_of(self.hardware)

    @property
    def all_kinds(self) -> tuple[Kind, ...]:
        """The kinds in the order in which sessions take turns."""
        return self.kinds or tuple(
            Kind(
                fps=fps,
                latency_s=self.latency_s,
                first_frame_s=self.first_frame_s,
                min_steps=self.min_steps,
                min_fps=self.min_fps,
                accepts_still=self.accepts_still,
            )
            for fps in self.fps
        )

    def costs(self, costs: Costs, now_s: float) -> Costs:
        """What work costs at a time."""
        if self.slow_from_s <= now_s < self.slow_until_s:
            return costs.times(self.slowdown)
        return costs

    def arrivals(self) -> list[tuple[float, float, Kind]]:
        """(arrival, departure, kind) of every session, in the order of arrival."""
        kinds = self.all_kinds
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
                kinds[index % len(kinds)],
            )
            for index, time_s in enumerate(times)
            if time_s < self.seconds
        ]
        return sorted(came, key=lambda one: one[:2])


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
    kinds = table.get("kinds", ())
    flat = {key: value for key, value in table.items() if key != "kinds"}
    values = _values(flat, Workload, origin)
    if not isinstance(kinds, list | tuple):
        raise ConfigError(f"{origin}: kinds must be tables, found {kinds!r}; write [[kinds]]")
    if kinds and "fps" in flat and len(values["fps"]) > 1:
        raise ConfigError(f"{origin}: fps names several rates beside kinds; leave it out")
    shared = {key: value for key, value in values.items() if key in KIND_KEYS}
    if shared.get("fps"):
        shared["fps"] = shared["fps"][0]
    try:
        values["kinds"] = tuple(
            Kind(**{**shared, **_values(one, Kind, f"kind {number}")})
            for number, one in enumerate(cast("Sequence[object]", kinds), 1)
        )
        return Workload(**values)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _values(table: object, of: type[Workload | Kind], origin: str) -> dict[str, Any]:
    """Typed values of a table's keys, each of which is a field."""
    if not isinstance(table, dict):
        raise ConfigError(f"{origin} must be a table, found {table!r}; write [[kinds]]")
    defaults = {one.name: one.default for one in fields(of) if one.name != "kinds"}
    values: dict[str, Any] = {}
    for key, value in cast("dict[str, object]", table).items():
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            remedy = f"did you mean {near[0]}?" if near else "remove it"
            raise ConfigError(f"{origin}: unknown key {key}; {remedy}")
        values[key] = _typed(key, value, defaults[key], origin)
    return values


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
