"""The pictures of one file, decoded with PyAV (FFmpeg).

The content decides what a file is, not its name. Files are opened by Python and handed over as
objects: FFmpeg never interprets a name as an address or a pattern, and may follow no reference out
of the file (a playlist could otherwise name any other file). Pictures come upright and with square
pixels; interlaced ones as they are stored. Knows neither loops nor target rates.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamgen.errors import SourceError
from streamgen.media import pixels as picture
from streamgen.media.sources.retiming import TimedPicture
from streamgen.types import Pixels

logger = logging.getLogger(__name__)

FALLBACK_FPS = 25.0  # where a file states no rate
HIGHEST_FPS = 1000.0  # a stated rate from here on is the file's time base, not a rate
_STILL_FORMATS = ("_pipe", "image2")  # how FFmpeg's names of its readers of single pictures end
_PLAYLISTS = (b"#EXTM3U", b"ffconcat")  # FFmpeg would try for seconds to follow them
_TEXT_FORMATS = frozenset({"tty"})  # FFmpeg would draw any text file as a terminal


class Content(Protocol):
    """Bytes that can be read from their beginning any number of times; `str` of it names it."""

    def open(self) -> InputContainer:
        """Begin anew; what was opened before is closed. SourceError if nothing can be read."""
        ...

    def close(self) -> None: ...


class FileContent:
    """A file of this machine; raises SourceError, with what to do, if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _opened(path)

    def __str__(self) -> str:
        return str(self._path)

    def open(self) -> InputContainer:
        self._file.seek(0)
        if self._file.read(16).startswith(_PLAYLISTS):
            raise _unreadable(self)
        self._file.seek(0)
        try:
            return av.open(self._file, mode="r", options={"protocol_whitelist": ""})
        except (FFmpegError, OSError, ValueError) as error:
            raise _unreadable(self) from error

    def close(self) -> None:
        self._file.close()


class PictureFile:
    """The pictures of some content; raises SourceError if there are none. Owns the content.

    Content that is damaged or cut off gives what can be decoded and then ends.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        try:
            self._container, self._stream = self._start_decoding()
        except BaseException:
            content.close()
            raise
        self._is_at_start = True

    @property
    def is_still(self) -> bool:
        """Whether it is a single picture and not a film."""
        return self._container.format.name.endswith(_STILL_FORMATS)

    @property
    def fps(self) -> float:
        """Frames a second on average, as the file states it."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate and 0 < rate < HIGHEST_FPS else FALLBACK_FPS

    def pictures(self) -> Iterator[TimedPicture]:
        """The pictures from the beginning to the end, timed from 0 and strictly growing.

        Starts again with each call; only the iterator of the newest call may be used.
        """
        if not self._is_at_start:
            self._container.close()
            self._container, self._stream = self._start_decoding()
        self._is_at_start = False
        period_s = 1.0 / self.fps
        first_s: float | None = None
        start_s = -period_s
        aspect = self._stream.sample_aspect_ratio
        for frame in self._decoded():
            next_s = start_s + period_s
            if frame.pts is not None and frame.time_base is not None:
                stated_s = float(frame.pts * frame.time_base)
                first_s = stated_s if first_s is None else first_s
                if stated_s - first_s > start_s:
                    next_s = stated_s - first_s
            start_s = next_s
            yield TimedPicture(upright(frame, aspect), start_s, start_s + period_s)

    def close(self) -> None:
        self._container.close()
        self._content.close()

    def _start_decoding(self) -> tuple[InputContainer, VideoStream]:
        """Open the content from its beginning and choose its stream of pictures."""
        container = self._content.open()
        if container.format.name in _TEXT_FORMATS or not container.streams:
            container.close()
            raise _unreadable(self._content)
        for stream in container.streams.video:
            if not stream.disposition & Disposition.attached_pic:
                stream.thread_type = "AUTO"
                return container, stream
        kind = "sound" if container.streams.audio else "data"
        container.close()
        raise SourceError(f"{self._content} has {kind} but no pictures; give a video or a picture")

    def _decoded(self) -> Iterator[VideoFrame]:
        """All frames that can be decoded; damage is skipped and told in one warning."""
        num_damaged = 0
        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except FFmpegError:
                    num_damaged += 1
        except FFmpegError:
            num_damaged += 1
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"cannot read on in {self._content}: {reason}; check the disk or the network"
            raise SourceError(message) from error
        if num_damaged:
            logger.warning("%s is damaged; skipped %d pieces of it", self._content, num_damaged)


def upright(frame: VideoFrame, aspect: Fraction | None) -> Pixels:
    """A decoded picture as it is to be seen: turned, its pixels (`aspect` wide) made square."""
    width = max(1, round(frame.width * aspect)) if aspect else frame.width
    rgb = frame.reformat(width=width, height=frame.height, format="rgb24").to_ndarray()
    return picture.turn(cast(Pixels, rgb), round(frame.rotation / 90))


def _opened(path: Path) -> BinaryIO:
    """Open `path` for reading, or say in one line why not and what to do."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise _missing(path) from error
    except IsADirectoryError as error:
        raise SourceError(f"{path} is a folder; name a file in it") from error
    except PermissionError as error:
        raise SourceError(f"no permission to read {path}; change its rights") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot open {path}: {error}; check the name") from error
    if not file.seekable():
        file.close()
        raise SourceError(f"{path} is a pipe or a device, not a file; record it to a file first")
    if file.seek(0, 2) == 0:
        file.close()
        raise SourceError(f"{path} is empty (0 bytes); was it written completely?")
    return file


def _missing(path: Path) -> SourceError:
    folder = path.parent
    if not folder.is_dir():
        return SourceError(f"there is no folder {folder}, so no {path.name} in it; check the path")
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    except OSError:
        names = []
    nearest = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    hint = f"did you mean {folder / nearest[0]}?" if nearest else "check the name"
    return SourceError(f"there is no file {path}; {hint}")


def _unreadable(content: Content) -> SourceError:
    return SourceError(
        f"{content} is neither a video nor a picture that can be read; "
        "is it complete, and does it play elsewhere?"
    )
