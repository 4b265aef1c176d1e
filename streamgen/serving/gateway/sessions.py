"""The sessions that run here, by name, and snapshots that wait for a session to go on from them.

For one event loop; no network.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from streamgen.clock import Clock
from streamgen.errors import CapacityError, ConfigError
from streamgen.serving.gateway.messages import Figures, GrantedSettings, Report
from streamgen.serving.gateway.places import RETRY_AFTER_S
from streamgen.serving.live_stream import LiveStream
from streamgen.serving.snapshot import Snapshot

ID_BYTES = 9  # of a session's name: nobody guesses another one's
HELD_S = 60.0  # that a snapshot waits for its session
MAX_HELD = 32


@dataclass(slots=True, eq=False)
class RunningSession:
    """One visitor's stream, as others may look at it."""

    id: str
    stream: LiveStream
    granted: GrantedSettings
    began_s: float
    tell: Callable[[Report], Awaitable[None]]
    figures: Figures | None = field(default=None, init=False)


class Sessions:
    """Owns the list of what runs."""

    def __init__(self) -> None:
        self._running: dict[str, RunningSession] = {}

    @staticmethod
    def new_id() -> str:
        return secrets.token_urlsafe(ID_BYTES)

    def add(self, session: RunningSession) -> None:
        self._running[session.id] = session

    def remove(self, session: RunningSession) -> None:
        self._running.pop(session.id, None)

    def all(self) -> Iterable[RunningSession]:
        return tuple(self._running.values())

    def __getitem__(self, name: str) -> RunningSession:
        """KeyError if there is none of that name."""
        return self._running[name]

    def __len__(self) -> int:
        return len(self._running)


class HeldSnapshots:
    """Snapshots that were sent here, each for one session and for a while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, tuple[float, Snapshot]] = {}

    def hold(self, snapshot: Snapshot) -> str:
        """Keep a snapshot; returns what `take` knows it by. CapacityError if too many wait."""
        now_s = self._clock.now()
        self._held = {key: one for key, one in self._held.items() if now_s - one[0] < HELD_S}
        if len(self._held) >= MAX_HELD:
            raise CapacityError(
                f"{MAX_HELD} snapshots wait for their sessions; try again",
                retry_in_s=RETRY_AFTER_S,
            )
        key = Sessions.new_id()
        self._held[key] = now_s, snapshot
        return key

    def take(self, key: str) -> Snapshot:
        """The snapshot, once; ConfigError if there is none."""
        held_s, snapshot = self._held.pop(key, (0.0, None))
        if snapshot is None or self._clock.now() - held_s >= HELD_S:
            raise ConfigError(f"no snapshot of that name waits here; they are kept {HELD_S:.0f} s")
        return snapshot
