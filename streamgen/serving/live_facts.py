"""What a live stream is asked to be, what there is to ask for, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.serving.build import FULL_STRENGTH_NOISE
from streamgen.serving.host import Host
from streamgen.types import PictureSize


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a live stream is asked to be; None leaves a choice to the preset."""

    preset: str
    prompt: str
    seed: int | None = None
    strength: float | None = None
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class PresetFacts:
    """What a page must know of a preset before it opens a stream of it."""

    name: str
    description: str
    knowledge: str
    takes_video: bool
    size: PictureSize
    fps: float  # the natural rate of its content; a restyled input keeps its own rate
    steps: int  # the most that a stream can have
    sessions: int  # streams that it has memory for
    seed: int
    strength: float = 0.0  # of video-to-video that asks for none
    transition_chunks: int = 0  # within which a new prompt takes over, unless told otherwise


@dataclass(frozen=True, slots=True)
class Granted:
    """What a live stream is now."""

    wishes: Wishes
    facts: PresetFacts
    unknown_words: tuple[str, ...]
    quality: str = "full"
    """The rung of its service level that it is on."""


def facts_of(name: str, host: Host) -> PresetFacts:
    """The facts of a preset that is loaded."""
    config = host.pipeline.config
    return PresetFacts(
        name=name,
        description=config.description,
        knowledge=host.pipeline.bundle.knowledge,
        takes_video=host.takes_video,
        size=host.picture_size,
        fps=host.fps,
        steps=host.max_steps,
        sessions=config.engine.sessions,
        seed=config.engine.seed,
        strength=_strength(host) if host.takes_video else 0.0,
        transition_chunks=config.prompts.transition_chunks,
    )


def _strength(host: Host) -> float:
    """The strength in [0, 1] of a session that asks for none; see `video_start`."""
    config = host.pipeline.config.noise_control
    if host.pipeline.bundle.dit.facts.condition_channels > 0:
        return min(1.0, config.condition_noise / FULL_STRENGTH_NOISE)
    return config.start_sigma
