"""A camera that exists in a test only: it is unplugged and plugged in by the simulated clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamgen.clock import SimulatedClock
from streamgen.errors import SourceError
from streamgen.media.source import SourceFacts
from streamgen.types import PictureSize, Pixels
from tests.media_files import grey

TIMEOUT_S = 1.0  # so long a camera that was unplugged keeps its reader waiting


@dataclass
class FakeCamera:
    """Grey pictures at `fps`, each grey the picture's number modulo 256, but for some `gaps_s`."""

    clock: SimulatedClock
    fps: float = 30.0
    size: PictureSize = field(default_factory=lambda: PictureSize(48, 64))
    gaps_s: tuple[tuple[float, float], ...] = ()
    num_opened: int = 0
    num_closed: int = 0
    sizes: list[PictureSize] = field(default_factory=list[PictureSize])
    """Of later openings; the last one stays."""

    def open(self) -> FakeConnection:
        if self.is_unplugged:
            raise SourceError("there is no camera; plug one in")
        self.num_opened += 1
        if self.num_opened > 1 and self.sizes:
            self.size = self.sizes.pop(0)
        return FakeConnection(self)

    @property
    def is_unplugged(self) -> bool:
        return any(start <= self.clock.now() < end for start, end in self.gaps_s)


class FakeConnection:
    """The camera while it is open; it breaks for good when the camera is unplugged."""

    def __init__(self, camera: FakeCamera) -> None:
        self._camera = camera
        self._is_broken = False

    @property
    def facts(self) -> SourceFacts:
        return SourceFacts(self._camera.size, self._camera.fps, is_live=True)

    def grab(self) -> Pixels | None:
        camera, clock = self._camera, self._camera.clock
        number = int(clock.now() * camera.fps + 1e-6) + 1
        clock.advance_to(number / camera.fps)
        if self._is_broken or camera.is_unplugged:
            self._is_broken = True
            clock.sleep(TIMEOUT_S)
            return None
        return grey(number % 256, height=camera.size.height, width=camera.size.width)

    def close(self) -> None:
        self._camera.num_closed += 1
