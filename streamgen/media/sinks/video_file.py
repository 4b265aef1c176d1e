"""A video file as a sink: complete or not there, whatever happens.

Frames go to a file beside the target, `night.partial.mp4` for `night.mp4`, which takes the target's
place only at a clean end: neither a crash nor an error costs an existing file. Knows no codecs:
encoding is in streamgen.media.sinks.encoding.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

from av.error import FFmpegError

from streamgen.errors import ConfigError, SinkError
from streamgen.media import pixels as picture
from streamgen.media.partial_file import created_beside, partial_of
from streamgen.media.sink import writing_failed
from streamgen.media.sinks.encoding import ENCODINGS, Encoder, Encoding
from streamgen.types import Frame, PictureSize

logger = logging.getLogger(__name__)

LEAST_FREE_BYTES = 64 * 1024  # less is no room for the shortest film


class VideoFileSink:
    """Writes `target`, in the format that its ending names, at up to `fps` frames a second.

    A frame's `pts_s` chooses its place in a grid of 1/fps, so that dropped frames leave a still and
    not a hurry; frames closer together than the grid are spread over it.

    | end                                  | target        | partial file             |
    | `close`, also after Ctrl-C           | the new video | -                        |
    | `close` without a frame              | as before     | removed                  |
    | `abort`: the run failed elsewhere    | as before     | kept, named in the log   |
    | `write` or `close` failed, disk full | as before     | removed                  |
    | the process was killed               | as before     | playable, but the last second |
    """

    def __init__(self, target: Path, size: PictureSize, *, fps: float) -> None:
        if min(size.height, size.width) < 1 or fps <= 0:
            raise ValueError(f"a video of {size} at {fps} frames/s cannot be")
        encoding = check_ending(target)
        self._target = target
        self._size = size
        self._fps = fps
        self._first_pts_s: float | None = None
        self._last_index = -1
        self._has_ended = False
        self._place = check_place(target)
        try:
            self._partial, self._file = created_beside(self._place)
        except OSError as error:
            raise writing_failed(error, target) from error
        self._undo = contextlib.ExitStack()  # what takes the partial file away again
        self._undo.callback(_quietly, self._partial.unlink)
        self._undo.callback(_quietly, self._file.close)
        with self._failing_cleanly():
            self._encoder = Encoder(self._file, encoding, size, fps=fps)
            self._undo.callback(_quietly, self._encoder.discard)

    def write(self, frame: Frame) -> None:
        if self._has_ended:
            raise ValueError(f"{self._target} has ended; nothing can be written to it")
        if self._first_pts_s is None:
            self._first_pts_s = frame.pts_s
        index = round((frame.pts_s - self._first_pts_s) * self._fps)
        self._last_index = max(index, self._last_index + 1)
        with self._failing_cleanly():
            self._encoder.encode(picture.letterbox(frame.pixels, self._size), self._last_index)

    def close(self) -> None:
        if self._has_ended:
            return
        if self._last_index < 0:
            self._remove()
            logger.warning("no frame came, so %s was not written", self._target)
            return
        with self._failing_cleanly():
            self._encoder.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._partial, self._place)
            self._has_ended = True

    def abort(self) -> None:
        if self._has_ended:
            return
        if self._last_index < 0:
            self._remove()
            return
        self._has_ended = True
        _quietly(self._encoder.finish)
        _quietly(self._file.close)
        logger.warning("what was made of %s is in %s", self._target, self._partial)

    @contextlib.contextmanager
    def _failing_cleanly(self) -> Generator[None]:
        """Turn a failure of the disk or the encoder into SinkError, and remove the partial file."""
        try:
            yield
        except OSError as error:
            self._remove()
            raise writing_failed(error, self._target) from error
        except FFmpegError as error:
            self._remove()
            raise SinkError(
                f"cannot encode {self._target} as {self._size} at {self._fps:g} frames/s: "
                f"{error.strerror}; try another size or ending"
            ) from error

    def _remove(self) -> None:
        self._has_ended = True
        self._undo.close()


def check_ending(target: Path) -> Encoding:
    """How a file of this name is encoded. Raises ConfigError if its ending says nothing known."""
    encoding = ENCODINGS.get(target.suffix.lower())
    if encoding is None:
        known = ", ".join(ENCODINGS)
        raise ConfigError(f"cannot tell the format of {target} by its ending; known: {known}")
    return encoding


def _quietly(action: Callable[[], object]) -> None:
    """Do what can be done on the way out of a failure."""
    with contextlib.suppress(OSError, FFmpegError):
        action()


def check_place(target: Path) -> Path:
    """Where `target` really is, links followed; SinkError if no file can be written there now.

    Nothing is made, and a file that is there stays as it is.
    """
    place = Path(os.path.realpath(target))
    try:
        if place.is_dir():
            raise SinkError(f"{target} is a folder; name a file in it")
        if place.exists() and not place.is_file():
            raise SinkError(f"{target} is a device or a pipe, not a file; choose another -o")
        check_folder(place.parent, target)
        with contextlib.suppress(FileNotFoundError):
            partial_of(place, 1).lstat()
    except OSError as error:  # a name that is too long
        raise writing_failed(error, target) from error
    return place


def check_folder(folder: Path, target: Path) -> None:
    """SinkError if there is no such folder, nothing may be made in it or its disk is full."""
    if not folder.is_dir():
        raise SinkError(f"there is no folder {target.parent}; create it or choose another -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise writing_failed(OSError(errno.EACCES, ""), target)
    disk = shutil.disk_usage(folder)
    if disk.total > 0 and disk.free < LEAST_FREE_BYTES:  # some file systems tell no sizes at all
        raise writing_failed(OSError(errno.ENOSPC, ""), target)
