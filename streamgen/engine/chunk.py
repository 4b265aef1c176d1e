"""A chunk between its first step and its last, as the host knows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamgen.engine.batch import Level, Started
from streamgen.engine.collaborators import HeldClip
from streamgen.types import PromptId


@dataclass(slots=True)
class ChunkOnLadder:
    """A chunk in flight, as the host knows it."""

    chunk: int
    prompt: PromptId
    start_level: Level
    pts_s: float
    captured_s: float
    num_frames: int
    """Pixel frames to show of it; fewer than it decodes to where an input ended in its midst."""
    repeat: int  # how often each of them is shown
    ready_s: float
    is_switch: bool
    """Whether it follows another prompt than the chunk before it."""
    begins_scene: bool
    """Whether it attends to nothing before it."""
    due_s: float
    started: Started  # to begin it anew if the executor loses it
    held: list[HeldClip] = field(default_factory=list["HeldClip"])
    """Still clips that came after it: they are shown when it has been."""
    next_step: int = 0
    is_busy: bool = False
    is_decoded: bool = False
