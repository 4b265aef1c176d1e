"""The threads that carry frames to sinks, one each: no output waits for another one.

A FileWriter hands over every frame; a LiveWriter those whose moment has come. Neither knows which
sink it serves, nor where frames come from.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

from streamgen.clock import Clock
from streamgen.errors import SinkError
from streamgen.media.frame_queue import FrameQueue
from streamgen.media.outlet import LiveOutlet, OutputStats
from streamgen.media.sink import FrameSink, SinkClosed
from streamgen.types import Frame

logger = logging.getLogger(__name__)

LONGEST_NAP_S = 0.1  # between two looks at whether to stop


class SinkWriter(ABC):
    """Writes one output in its own thread, from a queue of its own, and ends it there.

        start, put, put, ..., then exactly one of finish and abort, then join

    Ends by itself when the sink fails (`failure` says how) or when whoever reads it has gone.
    """

    def __init__(self, name: str, queue: FrameQueue) -> None:
        self.name = name
        self.failure: Exception | None = None
        self._queue = queue
        self._is_aborted = False
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)

    def start(self) -> None:
        """Begin to write; at most once."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def put(self, frames: Sequence[Frame]) -> bool:
        """Hand over the frames of a clip; False if nobody will ever see them."""
        return self._queue.put_clip(frames)

    def finish(self) -> None:
        """Say that no frame follows: what waits is still written, then the output is completed."""
        self._queue.close()

    def abort(self) -> None:
        """Say that the run failed elsewhere: a film that would have been replaced stays."""
        self._is_aborted = True
        self._queue.abandon()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False if the sink still holds the thread up, which is left behind."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning("%s did not end within %.0f s; leaving it behind", self.name, timeout_s)
            return False
        return True

    def _run(self) -> None:
        try:
            self._pump()
        except SinkClosed:
            pass
        except Exception as error:  # the thread's root: the error reaches whoever started it
            self.failure = error
        self._queue.abandon()
        try:
            if self._is_aborted:
                self._abort_sink()
            else:
                self._close_sink()
        except Exception as error:  # the same
            self.failure = self.failure or error
        if self.failure is not None and not isinstance(self.failure, SinkError):
            logger.error("%s failed unexpectedly", self.name, exc_info=self.failure)

    @abstractmethod
    def _pump(self) -> None:
        """Write until the queue ends."""

    @abstractmethod
    def _close_sink(self) -> None: ...

    @abstractmethod
    def _abort_sink(self) -> None: ...


class FileWriter(SinkWriter):
    """Hands every frame to a sink as soon as it is there."""

    def __init__(self, name: str, sink: FrameSink, queue: FrameQueue, stats: OutputStats) -> None:
        super().__init__(name, queue)
        self._sink = sink
        self._stats = stats

    def _pump(self) -> None:
        while (frame := self._queue.get()) is not None:
            self._sink.write(frame)
            self._stats.count(frame)
            self._stats.raise_lost_to(self._queue.num_dropped)

    def _close_sink(self) -> None:
        self._sink.close()

    def _abort_sink(self) -> None:
        self._sink.abort()


class LiveWriter(SinkWriter):
    """Shows frames when they are due, and the last ones after the end of the queue, too."""

    def __init__(self, name: str, outlet: LiveOutlet, queue: FrameQueue, clock: Clock) -> None:
        super().__init__(name, queue)
        self._outlet = outlet
        self._clock = clock

    def _pump(self) -> None:
        while True:
            frames = self._queue.get_waiting(self._until_due_s())
            if frames:
                self._outlet.add(frames)
            elif self._queue.has_ended():
                if self._is_aborted or self._outlet.has_shown_all:
                    return
                self._clock.sleep(min(LONGEST_NAP_S, self._until_due_s() or 0.0))
            self._outlet.turn(self._queue.num_dropped)

    def _until_due_s(self) -> float | None:
        due_s = self._outlet.due_s
        return None if due_s is None else max(0.0, due_s - self._clock.now())

    def _close_sink(self) -> None:
        self._outlet.close()

    def _abort_sink(self) -> None:
        self._outlet.abort()
