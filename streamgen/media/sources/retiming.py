"""Frames at other times: at a constant rate by their timestamps, or no earlier than they are due.

Knows no files and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from streamgen.clock import Clock
from streamgen.media.source import FrameSource, SourceFacts
from streamgen.types import Frame, Pixels

ROUNDING_S = 0.001  # timestamps may be this late: Matroska counts whole milliseconds
LATENESS_S = 1.0  # a source this far behind its timestamps starts counting anew


@dataclass(frozen=True, slots=True, eq=False)
class TimedPicture:
    """A picture that is to be seen from `start_s` to `end_s` at most."""

    pixels: Pixels
    start_s: float
    end_s: float


def resampled(pictures: Iterable[TimedPicture], *, fps: float) -> Iterator[TimedPicture]:
    """At each k / fps the nearest earlier picture, until the last one ends.

    Pictures come in order of `start_s`, the first at 0. Fewer than `fps` a second are repeated,
    more are left out.
    """
    index = 0
    held: TimedPicture | None = None
    for picture in pictures:
        while held is not None and index / fps < picture.start_s - ROUNDING_S:
            yield TimedPicture(held.pixels, index / fps, (index + 1) / fps)
            index += 1
        held = picture
    while held is not None and index / fps < held.end_s - ROUNDING_S:
        yield TimedPicture(held.pixels, index / fps, (index + 1) / fps)
        index += 1


class RealTimeSource:
    """Another source, its frames given out no earlier than their `pts_s`: a file as a camera.

    Owns the other source. A source that is slower than its timestamps is not hurried afterwards.
    """

    def __init__(self, source: FrameSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._start_s: float | None = None  # when, by the clock, pts_s was 0

    @property
    def facts(self) -> SourceFacts:
        return self._source.facts

    def read(self) -> Frame | None:
        frame = self._source.read()
        if frame is None:
            return None
        now_s = self._clock.now()
        if self._start_s is None or now_s - (self._start_s + frame.pts_s) > LATENESS_S:
            self._start_s = now_s - frame.pts_s
        self._clock.sleep(self._start_s + frame.pts_s - now_s)
        return replace(frame, captured_s=self._clock.now())

    def close(self) -> None:
        self._source.close()
