"""What a session asks for, and what it accepts on the way down. Values only.

A service level is checked when it is made, and against the pipeline that is to keep it by
`check_service`: what is negative, impossible or contradictory is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from streamgen.errors import ConfigError

MAX_WEIGHT = 100.0
LATE_BUFFER_CLIPS = 2  # a stall-free stream is to be this many clips ahead of its viewer


class CodecKind(StrEnum):
    """Which codec draws the pictures."""

    FULL = "full"
    TINY = "tiny"


@dataclass(frozen=True, slots=True)
class Quality:
    """One rung of a quality ladder: what a session gets."""

    num_steps: int
    rate_divisor: int = 1
    """Every so-many-th picture is drawn, and shown so many times."""
    skips_still: bool = False
    """A clip that looks like the one before costs nothing: the picture holds."""
    codec: CodecKind = CodecKind.FULL
    picture_divisor: int = 1
    """Height and width are divided by it."""

    def __str__(self) -> str:
        parts = [f"{self.num_steps} steps" if self.num_steps != 1 else "1 step"]
        if self.skips_still:
            parts.append("still clips held")
        if self.codec is CodecKind.TINY:
            parts.append("tiny codec")
        if self.rate_divisor > 1:
            parts.append(f"rate 1/{self.rate_divisor}")
        if self.picture_divisor > 1:
            parts.append(f"picture 1/{self.picture_divisor}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """What one session asks for. Raises ConfigError for what cannot be meant.

    With `latency_s` the oldest picture of every clip is handed over within that time of its capture
    (video-to-video); without, playback must not stall once it has begun (text-to-video).
    """

    fps: float
    """Pictures a second."""
    first_frame_s: float
    """From opening to the first picture."""
    latency_s: float | None = None
    weight: float = 1.0
    """A session of weight 2 goes down half as many rungs as one of weight 1."""
    min_steps: int = 0
    """Fewest steps that it accepts; 0: no fewer than the pipeline's."""
    min_fps: float = 0.0
    """Lowest rate that it accepts; 0: no lower than `fps`."""
    accepts_still: bool = False
    """Still clips may be held instead of drawn."""
    accepts_tiny_codec: bool = False
    min_picture: float = 1.0
    """Smallest share of the picture's height and width that it accepts, above 0 to 1."""

    def __post_init__(self) -> None:
        _check("fps", self.fps, 0.1, 240)
        _check("first_frame_s", self.first_frame_s, 1e-3, 3600)
        if self.latency_s is not None:
            _check("latency_s", self.latency_s, 1e-3, 3600)
        _check("weight", self.weight, 1.0, MAX_WEIGHT)
        _check("min_steps", self.min_steps, 0, 1000)
        _check("min_fps", self.min_fps, 0, 240)
        _check("min_picture", self.min_picture, 1 / 16, 1)
        if self.min_fps > self.fps:
            raise _wrong(
                "min_fps", self.min_fps, f"is above service.fps = {self.fps:g}", "lower it"
            )
        if self.accepts_still and self.latency_s is None:
            raise _wrong(
                "accepts_still",
                "true",
                "has no effect without service.latency_s: only an input can be still",
                "leave it out or ask for a latency",
            )


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """What service levels of a pipeline are measured by."""

    fps: float
    num_steps: int
    clip_frames: int
    """Pictures of the longest clip."""
    takes_video: bool
    has_tiny_codec: bool = False
    smallest_picture: float = 1.0
    """Smallest share of the picture's height and width that it can draw."""

    @property
    def collect_s(self) -> float:
        """From the capture of a clip's first picture to that of its last."""
        return (self.clip_frames - 1) / self.fps


def check_service(service: ServiceLevel, facts: PipelineFacts) -> None:
    """Raises ConfigError if this pipeline could never keep the service level, however idle."""
    if service.fps > facts.fps:
        raise _wrong(
            "fps", service.fps, f"is above the preset's picture.fps = {facts.fps:g}", "lower it"
        )
    if service.min_steps > facts.num_steps:
        raise _wrong(
            "min_steps",
            service.min_steps,
            f"is above the preset's {facts.num_steps} denoise steps",
            "lower it",
        )
    if service.accepts_tiny_codec and not facts.has_tiny_codec:
        raise _wrong(
            "accepts_tiny_codec", "true", "has no effect: this engine has one codec", "leave it out"
        )
    if service.min_picture < facts.smallest_picture:
        raise _wrong(
            "min_picture",
            service.min_picture,
            f"has no effect: this engine draws no smaller than {facts.smallest_picture:g} of its "
            f"pictures",
            "leave it out",
        )
    if service.latency_s is None:
        return
    if not facts.takes_video:
        raise _wrong(
            "latency_s",
            service.latency_s,
            "needs an input video, and this preset makes video from text",
            "leave it out",
        )
    if service.latency_s <= facts.collect_s:
        raise _wrong(
            "latency_s",
            service.latency_s,
            f"is impossible: a clip of {facts.clip_frames} pictures at {facts.fps:g} a second "
            f"takes {facts.collect_s:.3g} s to arrive",
            f"ask for more than {facts.collect_s:.3g}",
        )
    if service.first_frame_s <= facts.collect_s:
        raise _wrong(
            "first_frame_s",
            service.first_frame_s,
            f"is impossible: the first clip takes {facts.collect_s:.3g} s to arrive",
            f"ask for more than {facts.collect_s:.3g}",
        )


def quality_ladder(service: ServiceLevel, facts: PipelineFacts) -> tuple[Quality, ...]:
    """Rungs from full quality down, each cheaper than the one above: what is least seen first.

    Still clips held, tiny codec, fewer steps one at a time, lower rate, smaller picture; only what
    the session accepts and the pipeline can do.
    """
    divisor = max(1, math.floor(facts.fps / service.fps + 1e-9))
    rungs = [Quality(facts.num_steps, rate_divisor=divisor)]

    def add(
        *,
        num_steps: int | None = None,
        rate_divisor: int | None = None,
        skips_still: bool | None = None,
        codec: CodecKind | None = None,
        picture_divisor: int | None = None,
    ) -> None:
        last = rungs[-1]
        rungs.append(
            Quality(
                last.num_steps if num_steps is None else num_steps,
                last.rate_divisor if rate_divisor is None else rate_divisor,
                last.skips_still if skips_still is None else skips_still,
                last.codec if codec is None else codec,
                last.picture_divisor if picture_divisor is None else picture_divisor,
            )
        )

    if service.accepts_still and facts.takes_video:
        add(skips_still=True)
    if service.accepts_tiny_codec and facts.has_tiny_codec:
        add(codec=CodecKind.TINY)
    for steps in range(facts.num_steps - 1, (service.min_steps or facts.num_steps) - 1, -1):
        add(num_steps=steps)
    while service.min_fps and facts.fps / (2 * rungs[-1].rate_divisor) >= service.min_fps - 1e-9:
        add(rate_divisor=2 * rungs[-1].rate_divisor)
    smallest = max(service.min_picture, facts.smallest_picture)
    while 1 / (2 * rungs[-1].picture_divisor) >= smallest - 1e-9:
        add(picture_divisor=2 * rungs[-1].picture_divisor)
    return tuple(rungs)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise _wrong(name, value, f"must be in [{low:g}, {high:g}]", "choose one that is")


def _wrong(name: str, value: object, what: str, remedy: str) -> ConfigError:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return ConfigError(f"service.{name} = {shown} {what}; {remedy}")
