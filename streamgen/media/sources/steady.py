"""A live source that survives its device: an unplugged camera holds the picture and comes back.

Knows no particular device: cameras, screens and network streams keep the protocol `Device`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from streamgen.clock import Clock
from streamgen.errors import SourceError
from streamgen.media import pixels as picture
from streamgen.media.source import Interruptible, SourceFacts
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


def start_thread(work: Callable[[], None]) -> None:
    """Do `work` beside the caller; what is not done when the program ends dies with it."""
    threading.Thread(target=work, name="device-opening", daemon=True).start()


class SteadySource:
    """Frames of a device as they come; of its last picture, at its rate, while it is lost.

    A lost device is opened again after FIRST_RETRY_S, then ever more seldom, beside the reader: a
    network that does not answer, or a sender that is waited for, holds up neither `read` nor
    `close`. Frames keep the size of the first one: should the device come back with another, it is
    fitted in with bars. `pts_s` is the time since the first frame. It ends when its owner closes
    it, and never by itself.
    """

    def __init__(
        self,
        open_device: Callable[[], Device],
        *,
        name: str,
        clock: Clock,
        beside: Callable[[Callable[[], None]], None] = start_thread,
    ) -> None:
        """`beside` runs a try to open again. Raises SourceError if the device cannot be opened or
        gives no picture."""
        self._open_device = open_device
        self._name = name
        self._clock = clock
        self._beside = beside
        self._reopening: _Reopening | None = None
        device, first = _opened(open_device, name)
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

    def interrupt(self) -> None:
        """See Interruptible."""
        device = self._device
        if isinstance(device, Interruptible):
            device.interrupt()

    def close(self) -> None:
        self._let_go()
        reopening, self._reopening = self._reopening, None
        if reopening is not None:
            reopening.abandon()

    def _grabbed(self) -> Pixels | None:
        """The next picture, of a device just opened again if need be; None while it is lost."""
        if self._device is None:
            return self._found_again()
        try:
            pixels = self._device.grab()
        except SourceError as error:
            logger.debug("%s: %s", self._name, error)
            pixels = None
        if pixels is None:
            self._num_losses += 1
            logger.warning("lost %s; holding its last picture until it is back", self._name)
            self._let_go()
            self._wait_for_next_try()
        return pixels

    def _found_again(self) -> Pixels | None:
        """The first picture of the device if it is back; looks, and never waits."""
        if self._reopening is None:
            if self._clock.now() < self._retry_at_s:
                return None
            self._reopening = _Reopening(self._open_device, self._name, self._beside)
        if not self._reopening.is_done:
            return None
        reopening, self._reopening = self._reopening, None
        try:
            self._device, pixels = reopening.take()
        except SourceError as error:
            logger.debug("%s: %s", self._name, error)
            self._wait_for_next_try()
            return None
        self._retry_after_s = FIRST_RETRY_S
        logger.warning("%s is back", self._name)
        return pixels

    def _wait_for_next_try(self) -> None:
        self._retry_at_s = self._clock.now() + self._retry_after_s
        self._retry_after_s = min(2 * self._retry_after_s, LAST_RETRY_S)

    def _let_go(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()


class _Reopening:
    """One try to open a device and to get its first picture, which lasts as long as it lasts.

    Whoever began it takes the device or abandons the try, and then the device is closed as soon
    as there is one: it never outlives both.
    """

    def __init__(
        self,
        open_device: Callable[[], Device],
        name: str,
        beside: Callable[[Callable[[], None]], None],
    ) -> None:
        self._open_device = open_device
        self._name = name
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._outcome: tuple[Device, Pixels] | BaseException | None = None
        beside(self._run)

    @property
    def is_done(self) -> bool:
        with self._lock:
            return self._outcome is not None

    def take(self) -> tuple[Device, Pixels]:
        """What a try that is done has found; raises what it raised, SourceError as a rule."""
        assert self._outcome is not None, "the try is not done"
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            outcome = self._outcome
        if isinstance(outcome, tuple):
            outcome[0].close()

    def _run(self) -> None:
        try:
            outcome = _opened(self._open_device, self._name)
        except BaseException as error:  # the thread's root: the reader raises it
            outcome = error
        with self._lock:
            self._outcome = outcome
            is_late = self._is_abandoned
        if is_late and isinstance(outcome, tuple):
            outcome[0].close()


def _opened(open_device: Callable[[], Device], name: str) -> tuple[Device, Pixels]:
    """A device and its first picture; SourceError if there is none."""
    device = open_device()
    try:
        first = device.grab()
        if first is None:
            raise SourceError(f"{name} opens but gives no picture; is another program using it?")
    except BaseException:
        device.close()
        raise
    return device, first
