"""What a sink of frames promises, and what to say when writing fails.

The contract is tested on every implementation in tests/contract/test_frame_sink.py. Knows neither
files nor devices nor threads.
"""

from __future__ import annotations

import errno
from typing import Protocol

from streamgen.errors import SinkError
from streamgen.types import Frame


class SinkClosed(Exception):  # noqa: N818 - like StopIteration: it ends a loop and is no error
    """Whoever read this output has gone: the run ends here, quietly and successfully.

    Raised by `write` when a pipe was closed at its other end (`streamgen ... -o - | head`) or a
    viewer left. It is not a SinkError, so that a program cannot report it as one by accident.
    """


class FrameSink(Protocol):
    """A file, a pipe or a device that takes frames from one thread.

    A constructor opens the sink or raises SinkError, so that a mistake shows at the start. Its
    owner calls exactly one of `close` and `abort`, exactly once, also after `write` raised.
    """

    def write(self, frame: Frame) -> None:
        """Take one frame; waits if the sink is slower than the caller.

        Pixels of another size than the sink's are fitted into it with bars. The sink keeps no
        reference to pixels that it may write to. Raises SinkError if the sink breaks and
        SinkClosed if nobody reads it any more; after either, only `close` or `abort` may follow.
        """
        ...

    def close(self) -> None:
        """End the output so that it is complete; does nothing more if `write` has raised.

        Ctrl-C is such an end: whatever was written is meant to be kept. Raises SinkError if the
        rest cannot be written.
        """
        ...

    def abort(self) -> None:
        """End the output of a run that failed elsewhere; never raises.

        What would have been replaced by a complete output stays as it was.
        """
        ...


_REMEDIES = {
    errno.ENOSPC: "disk is full: {target}; free space or choose another -o",
    errno.EDQUOT: "disk quota is used up: {target}; free space or choose another -o",
    errno.EFBIG: "file may not grow further: {target}; raise the size limit or choose another -o",
    errno.EROFS: "file system is read-only: {target}; choose another -o",
    errno.EACCES: "no permission to write {target}; change its folder's rights or the -o",
    errno.EPERM: "no permission to write {target}; change its folder's rights or the -o",
}


def writing_failed(error: OSError, target: object) -> SinkError:
    """The SinkError that tells a user in one line why `target` could not be written."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is not None:
        return SinkError(remedy.format(target=target))
    reason = error.strerror or str(error) or type(error).__name__
    return SinkError(f"cannot write {target}: {reason}; check the device or choose another -o")
