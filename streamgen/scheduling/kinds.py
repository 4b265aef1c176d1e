"""A sort of session in a workload: what it asks for, and what each rung of its ladder costs."""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.errors import ConfigError
from streamgen.scheduling.capacity import Offer
from streamgen.scheduling.lane import Demand
from streamgen.scheduling.profiles import HardwareProfile
from streamgen.scheduling.service import (
    CodecKind,
    PipelineFacts,
    Quality,
    ServiceLevel,
    check_service,
    quality_ladder,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """Sessions that ask for the same. Raises ConfigError for what cannot be meant."""

    fps: float = 16.0
    latency_s: float = 0.6  # 0: text-to-video, without stalls
    first_frame_s: float = 2.0
    steps: int = 0  # at full quality; 0: as many as the hardware profile says
    chunk_frames: int = 1  # latent frames of a chunk
    min_steps: int = 1
    min_fps: float = 0.0
    accepts_still: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, value, high in (
            ("steps", self.steps, 100),
            ("chunk_frames", self.chunk_frames, 64),
        ):
            if not (name == "chunk_frames") <= value <= high:
                raise ConfigError(
                    f"{name} = {value} must be in [{int(name != 'steps')}, {high}]; change it"
                )
        if not 0 <= self.latency_s <= 3600:
            raise ConfigError(f"latency_s = {self.latency_s:g} must be in [0, 3600]; change it")
        if self.accepts_still and not self.latency_s:
            raise ConfigError("accepts_still needs latency_s above 0: only an input can be still")

    def facts(self, profile: HardwareProfile) -> PipelineFacts:
        """What a pipeline of the profile's model can do at this rate."""
        return PipelineFacts(
            fps=self.fps,
            num_steps=self.steps or profile.steps,
            clip_frames=self.chunk_frames * profile.clip_frames,
            takes_video=self.latency_s > 0,
            has_tiny_codec=profile.has_tiny_codec,
            smallest_picture=profile.smallest_picture,
        )

    def service(self, profile: HardwareProfile) -> ServiceLevel:
        """What a session asks for; ConfigError if this hardware could never keep it."""
        facts = self.facts(profile)
        service = ServiceLevel(
            fps=self.fps,
            first_frame_s=self.first_frame_s,
            latency_s=self.latency_s or None,
            min_steps=min(self.min_steps, facts.num_steps),
            min_fps=min(self.min_fps, self.fps),
            accepts_still=self.accepts_still,
            weight=self.weight,
        )
        check_service(service, facts)
        return service

    def offer(self, profile: HardwareProfile) -> Offer:
        """What capacity is told: the service level and what each rung costs, best first."""
        facts, service = self.facts(profile), self.service(profile)
        rungs = (demand_of(q, facts, self.chunk_frames) for q in quality_ladder(service, facts))
        latency_s = service.latency_s
        return Offer(
            service, tuple(one for one in rungs if latency_s is None or one.collect_s < latency_s)
        )


def demand_of(quality: Quality, facts: PipelineFacts, chunk_frames: int) -> Demand:
    """What a stream-batch session (a cache row a step) needs on one rung."""
    divisor = quality.rate_divisor
    return Demand(
        period_s=facts.clip_frames * divisor / facts.fps,
        collect_s=(facts.clip_frames * divisor - 1) / facts.fps if facts.takes_video else 0.0,
        steps=quality.num_steps,
        context_passes=0,
        rows=1,
        frames=chunk_frames / quality.picture_divisor**2,
        in_flight=quality.num_steps,
        clip_frames=facts.clip_frames,
        cache_rows=quality.num_steps,
        tiny_codec=quality.codec is CodecKind.TINY,
        skips_still=quality.skips_still,
        units=divisor,
    )
