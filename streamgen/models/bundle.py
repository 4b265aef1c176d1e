"""A model family's parts, put together by its loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamgen.models.base import CausalDiT, TextEncoder, VideoCodec
from streamgen.models.wan.lora import LoraSet


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """Everything of one model family: weights in three parts, and what people should know."""

    dit: CausalDiT
    codec: VideoCodec[Any]
    text: TextEncoder
    knowledge: str
    """One or two sentences on what the model can draw."""
    loras: LoraSet | None = None
    """What is merged into the DiT's weights; None if nothing is."""
