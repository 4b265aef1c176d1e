"""What a model family can draw, in words, without loading its weights."""

from __future__ import annotations

from streamgen.models.registry import family_knowledge


def knowledge_of(family: str) -> str | None:
    """One or two sentences, or None for a family that draws whatever it is asked for."""
    return family_knowledge(family)
