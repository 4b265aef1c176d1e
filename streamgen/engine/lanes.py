"""Where the work of a tick goes: encode, denoise, decode and copy, each in order on its own lane.

On a device that works by itself lanes run beside one another, and what one made may be used by
another only after a mark. On a CPU all is done where it is asked for, and marks have always
passed. Knows no device: `engine.cuda_lanes` has those of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Protocol

from torch import Tensor

from streamgen.clock import Clock


class Lane(Enum):
    """Lanes beside that of denoising, on which everything is that is not inside an `on`."""

    ENCODE = "encode"
    DECODE = "decode"
    COPY = "copy"


class Mark(Protocol):
    """A place on a lane: all that the lane was asked for before it."""

    def has_passed(self) -> bool: ...

    def wait(self) -> None:
        """Let the host wait until it has passed; never for the newest work inside a tick."""
        ...


class Stretch(Mark, Protocol):
    """A stretch of work on one lane; its mark is its end."""

    def seconds(self) -> float | None:
        """What it took, without the time it waited for its turn; None while it is under way."""
        ...


class Lanes(Protocol):
    """Hands out lanes, and what keeps them in order."""

    def on(self, lane: Lane) -> AbstractContextManager[None]:
        """What is asked for inside is done on that lane."""
        ...

    def mark(self) -> Mark:
        """The end of what the lane that we are on was asked for."""
        ...

    def take(self, mark: Mark, *tensors: Tensor) -> None:
        """Go on with what another lane made before `mark`: this lane does so after it, and the
        tensors' memory is given to nobody before this lane is through with it."""
        ...

    def timed(self) -> AbstractContextManager[Stretch]:
        """Measures what is asked for inside, which is on one lane."""
        ...

    def to_host(self, tensor: Tensor) -> Tensor:
        """A copy in the host's memory, whole once a mark behind it has passed."""
        ...


class Passed:
    """A mark where nothing is ever under way."""

    def has_passed(self) -> bool:
        return True

    def wait(self) -> None:
        """There is nothing to wait for."""


PASSED = Passed()


class HostStretch(Passed):
    """Work that the host did itself, by its clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.now()
        self._took_s: float | None = None

    def end(self) -> None:
        self._took_s = self._clock.now() - self._began_s

    def seconds(self) -> float | None:
        return self._took_s


class InOrder:
    """All lanes are one, of a CPU, which does at once what it is asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on(self, lane: Lane) -> AbstractContextManager[None]:
        return nullcontext()

    def mark(self) -> Mark:
        return PASSED

    def take(self, mark: Mark, *tensors: Tensor) -> None:
        """What was asked for before has been done before."""

    @contextmanager
    def timed(self) -> Iterator[Stretch]:
        stretch = HostStretch(self._clock)
        yield stretch
        stretch.end()

    def to_host(self, tensor: Tensor) -> Tensor:
        assert tensor.device.type == "cpu", "a device needs lanes of its own"
        return tensor
