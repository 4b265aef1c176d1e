"""What a session is given: something that begins its chunks, and something that draws the pictures.

Protocols only; who keeps them is in `start`, `recovery`, `codec` and `clips`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from streamgen.engine.batch import Started
from streamgen.scheduling.plan import Pass
from streamgen.scheduling.service import Quality
from streamgen.types import Clip

if TYPE_CHECKING:
    from torch import Tensor


class ChunkStarter(Protocol):
    """How a chunk begins: the whole difference between text-to-video and video-to-video."""

    @property
    def waiting_clips(self) -> int:
        """Clips at the input that could become chunks; 0 for text-to-video."""
        ...

    def ready(self) -> bool:
        """Whether `start` can make a chunk now, without waiting."""
        ...

    def has_ended(self) -> bool:
        """Whether no chunk will ever follow."""
        ...

    def start(self, chunk: int) -> Started:
        """Make the next chunk; chunks are asked for in order. Only after `ready` said True."""
        ...

    def drop(self, num_clips: int) -> None:
        """Forget the oldest clips at the input."""
        ...


@runtime_checkable
class LiveStarter(Protocol):
    """A starter whose clips come at times of their own: they have an age, and can be still."""

    def waiting_captured_s(self) -> tuple[float, ...]:
        """When the clips that wait were captured, oldest first."""
        ...

    def take_still(self, max_clips: int) -> tuple[HeldClip, ...]:
        """Take clips from the input's head that look as the one before; nobody draws them."""
        ...

    def take_lost(self) -> int:
        """Pictures since the last call that nobody will draw: dropped, or there was no room."""
        ...


@runtime_checkable
class GradedStarter(Protocol):
    """A starter that can follow a session's quality; asked for between two chunks."""

    def set_quality(self, quality: Quality) -> None: ...


@dataclass(frozen=True, slots=True)
class HeldClip:
    """A clip of the input that is not drawn: the last picture is shown `num_frames` times."""

    num_frames: int
    pts_s: float
    captured_s: float


class PendingClip(Protocol):
    """A decoded clip that may still be on its way to the host."""

    def has_arrived(self) -> bool:
        """Whether `wait` would not wait."""
        ...

    def wait(self) -> Clip: ...

    def device_s(self) -> float | None:
        """Seconds that the device took for it, once it has arrived; None: nobody measured."""
        ...


class ClipDecoder(Protocol):
    """Turns clean latents into pictures; holds the codec's streaming state of one session."""

    def decode(
        self,
        latents_FCHW: Tensor | None,
        *,
        num_frames: int,
        pts_s: float,
        captured_s: float,
    ) -> PendingClip:
        """Pictures of a finished chunk, the first `num_frames` of them."""
        ...


class SessionWatcher(Protocol):
    """Is told, in order, all that a session's pictures depend on and that nobody asked for."""

    def ran(self, passes: tuple[Pass, ...], *, is_alone: bool) -> None:
        """These passes ride in the next batch, and no other session's if `is_alone`."""
        ...

    def held(self, clip: HeldClip) -> None:
        """A still clip is held, before those passes."""
        ...

    def changed_rung(self, rung: int) -> None:
        """The session goes on at another rung, from those passes on."""
        ...

    def recovered(self) -> None:
        """What the executor had was lost, and the session goes on from its past."""
        ...
