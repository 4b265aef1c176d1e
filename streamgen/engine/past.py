"""The clean latents that a session's next chunk looks back on, for going on elsewhere.

Legend: F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class PastLatents:
    """Keeps the first `sinks` latent frames of a stream and its last `ring` ones; no copies."""

    def __init__(self, *, sinks: int, ring: int) -> None:
        self._sinks = sinks
        self._first: list[Tensor] = []
        self._last: deque[Tensor] = deque(maxlen=ring)

    def forget(self) -> None:
        """A new scene looks back on nothing that was before it."""
        self._first.clear()
        self._last.clear()

    def add(self, latents_FCHW: Tensor) -> None:
        """Take in a finished chunk."""
        for frame_CHW in latents_FCHW.unbind(0):
            if len(self._first) < self._sinks:
                self._first.append(frame_CHW)
            else:
                self._last.append(frame_CHW)

    def frames(self) -> list[Tensor]:
        """What the window holds, oldest first, CHW each; empty before the first chunk."""
        return [*self._first, *self._last]
