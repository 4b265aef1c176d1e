"""What a policy sees and what it answers. Values only.

The engine works out what *may* run (order of chunks, room for output, an input that has arrived);
a policy chooses from that. So a policy cannot break a stream, only delay it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamgen.types import SessionId


@dataclass(frozen=True, slots=True, order=True)
class Pass:
    """One row of one batched forward: a chunk of a session takes one step of its ladder.

    `step` counts from 0; step `num_steps` is the clean-context pass of the `clean` cache mode.
    """

    session: SessionId
    chunk: int
    step: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget the oldest `num_clips` clips that wait at a session's input."""

    session: SessionId
    num_clips: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do in this tick."""

    passes: tuple[Pass, ...]
    drops: tuple[Drop, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pass that may run now, without breaking the order in which a cache row sees chunks."""

    where: Pass
    ready_s: float
    """Since when it could have run, on the engine's clock."""
    num_rows: int
    """Rows it takes in the batch: 1, or 2 with a negative pass of guidance."""
    num_frames: float = 1
    """Latent frames of a row; a smaller picture counts as less."""
    passes_left: int = 1
    """Passes until its pictures are there, this one included."""
    due_s: float = math.inf
    """When its pictures are to be handed over; infinite for a session without a service level."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session as a policy sees it; candidates are in the order of their chunks."""

    session: SessionId
    num_steps: int
    chunks_in_flight: int
    waiting_clips: int
    """Clips at the input that have not become chunks; 0 for text-to-video."""
    candidates: tuple[Candidate, ...]
    waiting_due_s: tuple[float, ...] = ()
    """When the clips that wait at a live input are due, oldest first."""
    clip_frames: int = 0
    """Pictures of a clip, which are encoded before its first pass and decoded after its last."""
    weight: float = 1.0
    expected: Candidate | None = None
    """The first pass of the clip that a live input will have next, `ready_s` lying ahead."""


@dataclass(frozen=True, slots=True)
class View:
    """All sessions at the beginning of a tick."""

    now_s: float
    max_rows: int
    """Rows that one forward may have at most."""
    sessions: tuple[SessionView, ...]


def rows_of_a_batch(sessions: tuple[SessionView, ...], in_flight: int, stages: int) -> int:
    """Rows for the next batch that leave as many for each of the others in flight.

    A pipeline of several stages stands idle if all that may run goes into one batch. No fewer than
    the widest pass takes.
    """
    candidates = [one.num_rows for session in sessions for one in session.candidates]
    share = -(-(sum(candidates) + in_flight) // stages)
    return max([share, *candidates])
