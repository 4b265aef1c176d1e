"""A video file or a still picture as a source: once or again and again, at its own or a given rate.

Knows no formats: decoding is in streamgen.media.sources.decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from streamgen.clock import Clock
from streamgen.errors import SourceError
from streamgen.media import pixels as picture
from streamgen.media.source import SourceFacts
from streamgen.media.sources.decoding import Content, FileContent, PictureFile
from streamgen.media.sources.retiming import TimedPicture, resampled
from streamgen.types import Frame


class VideoFileSource:
    """A file, as fast as it is read; wrap it in RealTimeSource to have it at its own pace.

    `fps` resamples by timestamps to a constant rate (None: the file's own timestamps). `plays` is
    how often the file is shown, None for endlessly; `pts_s` goes on growing. A still picture counts
    as a film of one frame, and is decoded once however often it is shown. Should the size change in
    the middle, later frames are fitted into the size of the first, with bars.

    Raises SourceError if the file cannot be opened or has no picture.
    """

    def __init__(
        self,
        path: Path | Content,
        *,
        clock: Clock,
        fps: float | None = None,
        plays: int | None = 1,
    ) -> None:
        if (fps is not None and fps <= 0) or (plays is not None and plays < 1):
            raise ValueError(f"fps {fps} and plays {plays} must be more than 0")
        self._clock = clock
        self._file = PictureFile(FileContent(path) if isinstance(path, Path) else path)
        try:
            pictures = _played(self._file, plays, still_period_s=1.0 / (fps or self._file.fps))
            first = next(pictures, None)
            if first is None:
                raise SourceError(f"no picture in {path} can be decoded; is the file complete?")
        except BaseException:
            self._file.close()
            raise
        self._facts = SourceFacts(
            picture.size_of(first.pixels), fps=fps or self._file.fps, is_endless=plays is None
        )
        pictures = chain([first], pictures)
        self._pictures = iter(pictures) if fps is None else resampled(pictures, fps=fps)

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    @property
    def is_still(self) -> bool:
        """Whether it is a single picture and not a film."""
        return self._file.is_still

    def read(self) -> Frame | None:
        timed = next(self._pictures, None)
        if timed is None:
            return None
        pixels = picture.letterbox(timed.pixels, self._facts.size)
        return Frame(pixels, pts_s=timed.start_s, captured_s=self._clock.now())

    def close(self) -> None:
        self._file.close()


def _played(
    file: PictureFile, plays: int | None, *, still_period_s: float
) -> Iterator[TimedPicture]:
    """The pictures of all plays, one play after the other in time; a play without any ends it."""
    start_s = 0.0
    still: TimedPicture | None = None
    for _ in count() if plays is None else range(plays):
        end_s = start_s
        for timed in file.pictures() if still is None else [still]:
            if file.is_still:
                still = timed = TimedPicture(timed.pixels, 0.0, still_period_s)
            end_s = start_s + timed.end_s
            yield TimedPicture(timed.pixels, start_s + timed.start_s, end_s)
        if end_s == start_s:
            return
        start_s = end_s
