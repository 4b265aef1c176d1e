"""Bodies of requests and answers of the HTTP side (api.py). Knows no network and no torch."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from streamgen.serving.gateway.messages import MAX_TEXT_CHARACTERS, Figures, GrantedSettings


class State(StrEnum):
    """Where a server is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Model(BaseModel):
    """Frozen; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Failure(Model):
    """Why something could not be done, in one line."""

    message: str
    retryable: bool
    """Whether the same may work later."""
    retry_after_s: float | None = None


class SessionFacts(Model):
    """A session that runs."""

    session: str
    seconds: float
    """Since it began."""
    is_paused: bool
    granted: GrantedSettings
    figures: Figures | None
    """Of the last second; none in its first one."""


class SessionChange(Model):
    """What should be otherwise from the next chunk on; what is left out stays."""

    prompt: str | None = Field(default=None, max_length=MAX_TEXT_CHARACTERS)
    over_chunks: int | None = None
    """Within how many chunks the new prompt takes over; by default as the preset says."""
    strength: float | None = None
    steps: int | None = None
    """With another number of steps the stream begins anew."""
    seed: int | None = None
    """With another seed the stream begins anew."""
    is_paused: bool | None = None


class HeldSnapshot(Model):
    snapshot: str
    """For `start`."""
    kept_s: float
    """For how long it is kept."""


class Load(Model):
    """How full a server is."""

    state: State
    sessions: int
    waiting: int
    places: int
    """Sessions that there is memory for."""
    capacity: int
    """Sessions that it will keep up with, as far as it has measured: at most `places`."""
