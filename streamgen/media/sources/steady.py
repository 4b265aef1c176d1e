"""A live source that survives its device: an unplugged camera holds the picture and comes back.

Knows no particular device: cameras, screens and network streams keep the protocol `Device`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from streamgen.clock import Clock
from streamgen.errors import SourceError
from streamgen.media import pixels as picture
from streamgen.media.source import SourceFacts
from streamgen.types import Frame, Pixels

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.5  # after a loss; each failure doubles it
LAST_RETRY_S = 5.0  # at most so long between two tries
LEAST_STEP_S = 1e-6  # by which timestamps grow where the clock did not


class Device(Protocol):
    """Something live that can break, made by a function so that it can be made again."""

    @property
    def facts(self) -> SourceFacts: ...

    def grab(self) -> Pixels | None:
        """Wait for the next picture, [H, W, 3]; None or SourceError if the device is lost."""
        ...

    def close(self) -> None:
        """Let go of it; called once, also after it was lost."""
        ...


class SteadySource:
    """Frames of a device as they come; of its last picture, at its rate, while it is lost.

    A lost device is opened again after FIRST_RETRY_S, then ever more seldom. Frames keep the size
    of the first one: should the device come back with another, it is fitted in with bars. `pts_s`
    is the time since the first frame. It ends when its owner closes it, and never by itself.
    """

    def __init__(self, open_device: Callable[[], Device], *, name: str, clock: Clock) -> None:
        """Raises SourceError if the device cannot be opened or gives no picture."""
        self._open_device = open_device
        self._name = name
        self._clock = clock
        device = open_device()
        try:
            first = device.grab()
            if first is None:
                raise SourceError(
                    f"{name} opens but gives no picture; is another program using it?"
                )
        except BaseException:
            device.close()
            raise
        self._device: Device | None = device
        self._held = first
        self._is_first_due = True
        self._facts = SourceFacts(
            picture.size_of(first), fps=device.facts.fps, is_endless=True, is_live=True
        )
        self._start_s: float | None = None
        self._last_pts_s = -LEAST_STEP_S
        self._retry_after_s = FIRST_RETRY_S
        self._retry_at_s = 0.0
        self._num_losses = 0

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    @property
    def num_losses(self) -> int:
        """How often the device went away."""
        return self._num_losses

    @property
    def is_lost(self) -> bool:
        """Whether the picture is held now because there is no device."""
        return self._device is None

    def read(self) -> Frame:
        if self._is_first_due:
            self._is_first_due = False
        else:
            pixels = self._grabbed()
            if pixels is None:
                self._clock.sleep(1.0 / self._facts.fps)
            else:
                self._held = picture.letterbox(pixels, self._facts.size)
        now_s = self._clock.now()
        self._start_s = now_s if self._start_s is None else self._start_s
        self._last_pts_s = max(now_s - self._start_s, self._last_pts_s + LEAST_STEP_S)
        return Frame(self._held, pts_s=self._last_pts_s, captured_s=now_s)

    def close(self) -> None:
        self._let_go()

    def _grabbed(self) -> Pixels | None:
        """The next picture, of a device just opened again if need be; None while it is lost."""
        if self._device is None and not self._found_again():
            return None
        assert self._device is not None
        try:
            pixels = self._device.grab()
        except SourceError as error:
            logger.debug("%s: %s", self._name, error)
            pixels = None
        if pixels is None:
            self._note_loss()
        elif self._num_losses and self._retry_after_s != FIRST_RETRY_S:
            self._retry_after_s = FIRST_RETRY_S
            logger.warning("%s is back", self._name)
        return pixels

    def _note_loss(self) -> None:
        if self._retry_after_s == FIRST_RETRY_S:
            self._num_losses += 1
            logger.warning("lost %s; holding its last picture until it is back", self._name)
        self._let_go()
        self._wait_for_next_try()

    def _found_again(self) -> bool:
        if self._clock.now() < self._retry_at_s:
            return False
        try:
            self._device = self._open_device()
        except SourceError as error:
            logger.debug("%s: %s", self._name, error)
            self._wait_for_next_try()
        return self._device is not None

    def _wait_for_next_try(self) -> None:
        self._retry_at_s = self._clock.now() + self._retry_after_s
        self._retry_after_s = min(2 * self._retry_after_s, LAST_RETRY_S)

    def _let_go(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()
