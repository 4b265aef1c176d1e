"""What an engine is told of a session beside its recipe: the promise, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.scheduling.capacity import Offer
from streamgen.scheduling.service import Quality, ServiceLevel


@dataclass(frozen=True, slots=True)
class ServiceTerms:
    """Nothing of a session without a service level."""

    service: ServiceLevel | None = None
    ladder: tuple[Quality, ...] = ()
    """Its quality ladder, best first; none for a session whose quality never changes."""
    offer: Offer | None = None
    """What each rung needs; None for a session that the governor leaves alone."""
    frame_s: float = 0.0
    """How long one picture is shown."""
    rung: int = 0
    """Where on the ladder it begins, if no governor says."""


NO_TERMS = ServiceTerms()
