"""Frames at other times: at a constant rate by their timestamps, or no earlier than they are due.

Two for files (`resampled`, `RealTimeSource`) and one for cameras (`LiveRateSource`).
Knows no files and decodes nothing.
"""

from __future__ import annotations

from collections import deque
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
    It counts as live: who reads it late skips, as with a camera.
    """

    def __init__(self, source: FrameSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._start_s: float | None = None  # when, by the clock, pts_s was 0

    @property
    def facts(self) -> SourceFacts:
        return replace(self._source.facts, is_live=True)

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


class LiveRateSource:
    """Another live source at `fps`: frames that come too soon are left out, late ones shown twice.

    Each moment k / fps gets the newest frame as soon as there is one; nothing waits. A gap of more
    than LATENESS_S is left a gap, not filled. Owns the other source.
    """

    def __init__(self, source: FrameSource, *, fps: float) -> None:
        if fps <= 0:
            raise ValueError(f"a rate is more than 0 frames/s, not {fps}")
        self._source = source
        self._fps = fps
        self._next = 0  # the first moment that has no frame yet
        self._due: deque[Frame] = deque()

    @property
    def facts(self) -> SourceFacts:
        return replace(self._source.facts, fps=self._fps)

    def read(self) -> Frame | None:
        while not self._due:
            frame = self._source.read()
            if frame is None:
                return None
            last = int(frame.pts_s * self._fps + 1e-6)  # the newest moment that has come
            if last - self._next > LATENESS_S * self._fps:
                self._next = last
            moments = range(self._next, last + 1)
            self._due.extend(replace(frame, pts_s=moment / self._fps) for moment in moments)
            self._next = max(self._next, last + 1)
        return self._due.popleft()

    def close(self) -> None:
        self._source.close()
