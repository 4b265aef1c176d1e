"""The thread that carries frames from a source into a queue.

Knows neither which source nor which policy of the queue it serves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from streamgen.errors import SourceError
from streamgen.media.frame_queue import FrameQueue
from streamgen.media.source import FrameSource, Interruptible
from streamgen.types import Frame, Pixels

logger = logging.getLogger(__name__)

STOP_S = 1.0  # that whoever closes a stream waits for its source


class SourceReader:
    """Reads `source` in its own thread until its end, its failure or `stop`.

    Owns the source and closes it exactly once, in that thread; then closes the queue, with the
    error if there was one. `prepare` makes the source's pictures what the stream wants, in the same
    thread (`Framing.apply`); a picture that comes again at once is prepared only once.
    """

    def __init__(
        self,
        source: FrameSource,
        queue: FrameQueue,
        *,
        prepare: Callable[[Pixels], Pixels] | None = None,
    ) -> None:
        self._source = source
        self._queue = queue
        self._prepare = prepare
        self._raw: Pixels | None = None
        self._prepared: Pixels | None = None
        self._thread = threading.Thread(target=self._run, name="source-reader", daemon=True)

    def start(self) -> None:
        """Begin to read; at most once."""
        self._thread.start()

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Abandon the queue and wait for the thread; False if the source still holds it up.

        A source that blocks in `read` and cannot be interrupted ends with its next frame or its own
        timeout, at the latest with the program.
        """
        self._queue.abandon()
        if isinstance(self._source, Interruptible) and self._thread.is_alive():
            self._source.interrupt()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning("the source did not stop within %.1f s; leaving it behind", timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._pump()
        except Exception as caught:  # the thread's root: the error reaches the queue's reader
            error = caught
        try:
            self._source.close()
        except Exception as caught:  # the same
            error = error or caught
        if error is not None and not isinstance(error, SourceError):
            logger.error("the source failed unexpectedly", exc_info=error)
        self._queue.close(error)

    def _pump(self) -> None:
        while (frame := self._source.read()) is not None:
            if not self._queue.put(self._as_wanted(frame)):
                return

    def _as_wanted(self, frame: Frame) -> Frame:
        if self._prepare is None:
            return frame
        if self._prepared is None or frame.pixels is not self._raw:
            self._raw, self._prepared = frame.pixels, self._prepare(frame.pixels)
        return Frame(self._prepared, pts_s=frame.pts_s, captured_s=frame.captured_s)
