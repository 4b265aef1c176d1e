"""The bounded queue between a thread that makes frames and a thread that takes them.

FrameQueue is the only object that two threads share. What happens when it is full is the one
difference between its two kinds: LiveFrameQueue drops the oldest frame and counts it, so that a
slow reader sees the present and never an ever older past; FileFrameQueue makes the writer wait, so
that nothing is lost. Knows neither sources nor sinks nor clocks.

    writer                               reader
    put, put, ..., close(error or None)  get / get_batch until the end or the error, or abandon
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from streamgen.types import Clip, Frame

Callback = Callable[[], object]


class FrameQueue(ABC):
    """A first-in first-out queue of at most `capacity` frames, one writer and one reader.

    After `close`, the reader takes what is left and then sees the end: None, or the error that the
    writer closed with, raised in the reader's thread each time it asks again.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a queue holds at least one frame, not {capacity}")
        self._capacity = capacity
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._error: Exception | None = None
        self._num_taken = 0
        self._num_dropped = 0
        self._read_waiters: dict[object, tuple[int, Callback]] = {}
        self._write_waiters: dict[object, Callback] = {}

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def num_waiting(self) -> int:
        """Frames that can be taken now."""
        with self._changed:
            return len(self._frames)

    @property
    def num_taken(self) -> int:
        """Frames that the reader has taken since the start."""
        with self._changed:
            return self._num_taken

    @property
    def num_dropped(self) -> int:
        """Frames that were put and that the reader will never see."""
        with self._changed:
            return self._num_dropped

    def captured_s(self, step: int) -> tuple[float, ...]:
        """Capture times of the frames that wait, of every `step`-th one, oldest first."""
        with self._changed:
            return tuple(
                frame.captured_s for frame in itertools.islice(self._frames, 0, None, step)
            )

    # The writer's side

    def put(self, frame: Frame) -> bool:
        """Append a frame; False if the queue is closed, so that nobody will ever take it."""
        with self._changed:
            if not self._is_closed:
                self._make_room()
            if self._is_closed:
                return False
            self._frames.append(frame)
            callbacks = self._announce()
        _call(callbacks)
        return True

    def put_clip(self, frames: Sequence[Frame]) -> bool:
        """Append frames that belong together; False if the queue is closed, as `put` says."""
        return all(self.put(frame) for frame in frames)

    def close(self, error: Exception | None = None) -> None:
        """Say that no frame follows, and why if it is a failure; the first call counts."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._error = error
            callbacks = self._announce()
        _call(callbacks)

    def when_writable(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` once, as soon as `put` would not wait; returns how to cancel that.

        It runs at once in this thread or later in the reader's, outside the lock, and must return
        quickly; asyncio passes `partial(loop.call_soon_threadsafe, event.set)`.
        """
        key = object()
        with self._changed:
            self._write_waiters[key] = callback
            callbacks = self._announce()
        _call(callbacks)
        return lambda: self._forget(key)

    # The reader's side

    def get(self, timeout_s: float | None = None) -> Frame | None:
        """Take the oldest frame, waiting for it up to `timeout_s`, or without limit if None.

        None means the end, or that the time is up (then `has_ended()` is False). Raises the
        writer's error once the frames before it are taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_readable(1), timeout_s)
            if not self._frames:
                if self._error is not None:
                    raise self._error
                return None
            frame = self._frames.popleft()
            self._num_taken += 1
            callbacks = self._announce()
        _call(callbacks)
        return frame

    def get_batch(self, num_frames: int) -> Clip | None:
        """Take exactly `num_frames` as one clip without waiting; None if they are not all there.

        Raises the writer's error once fewer than that are left. A rest that fills no clip after
        the end (`has_ended(num_frames)`) stays for `get`.
        """
        self._check_fits(num_frames)
        with self._changed:
            if len(self._frames) < num_frames:
                if self._error is not None:
                    raise self._error
                return None
            frames = [self._frames.popleft() for _ in range(num_frames)]
            self._num_taken += num_frames
            callbacks = self._announce()
        _call(callbacks)
        return clip_of(frames)

    def get_waiting(self, timeout_s: float | None = None) -> list[Frame]:
        """Take all that waits, or the first that comes within `timeout_s`; without limit if None.

        Nothing means the end, or that the time is up; raises the writer's error as `get` does.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_readable(1), timeout_s)
            if not self._frames:
                if self._error is not None:
                    raise self._error
                return []
            frames = list(self._frames)
            self._frames.clear()
            self._num_taken += len(frames)
            callbacks = self._announce()
        _call(callbacks)
        return frames

    def wait(self, num_frames: int, timeout_s: float | None = None) -> bool:
        """Wait until `num_frames` can be taken (True), or the end or the time has come (False)."""
        self._check_fits(num_frames)
        with self._changed:
            self._changed.wait_for(lambda: self._is_readable(num_frames), timeout_s)
            return len(self._frames) >= num_frames

    def has_ended(self, num_frames: int = 1) -> bool:
        """Whether `num_frames` will never be there again: closed, and fewer are left."""
        with self._changed:
            return self._is_closed and len(self._frames) < num_frames

    def when_readable(self, callback: Callback, num_frames: int = 1) -> Callable[[], None]:
        """Call `callback` once, as soon as `num_frames` are there or the end is; see when_writable.

        Returns how to cancel that.
        """
        self._check_fits(num_frames)
        key = object()
        with self._changed:
            self._read_waiters[key] = (num_frames, callback)
            callbacks = self._announce()
        _call(callbacks)
        return lambda: self._forget(key)

    def abandon(self) -> None:
        """Say that nobody reads any more: drops what waits, and `put` returns False from now on."""
        with self._changed:
            self._num_dropped += len(self._frames)
            self._frames.clear()
            self._is_closed = True
            callbacks = self._announce()
        _call(callbacks)

    # Inside: everything below is called with the lock held

    @abstractmethod
    def _make_room(self) -> None:
        """Return with room for one frame, or with the queue closed."""

    @abstractmethod
    def _is_writable(self) -> bool:
        """Whether `put` would return without waiting."""

    def _is_readable(self, num_frames: int) -> bool:
        return self._is_closed or len(self._frames) >= num_frames

    def _announce(self) -> list[Callback]:
        """Wake all threads that wait, and hand out the callbacks whose moment has come."""
        self._changed.notify_all()
        callbacks: list[Callback] = []
        for key, (num_frames, callback) in list(self._read_waiters.items()):
            if self._is_readable(num_frames):
                del self._read_waiters[key]
                callbacks.append(callback)
        if self._write_waiters and self._is_writable():
            callbacks.extend(self._write_waiters.values())
            self._write_waiters.clear()
        return callbacks

    def _forget(self, key: object) -> None:
        with self._changed:
            self._read_waiters.pop(key, None)
            self._write_waiters.pop(key, None)

    def _check_fits(self, num_frames: int) -> None:
        if not 1 <= num_frames <= self._capacity:
            raise ValueError(f"a queue of {self._capacity} frames never holds {num_frames}")


class LiveFrameQueue(FrameQueue):
    """For cameras and viewers: `put` never waits; when full, the oldest frame is dropped.

    The frames of `put_clip` come at once: a reader that takes all that waits sees whole clips.
    """

    def resize(self, capacity: int) -> None:
        """Hold at most so many frames from now on; what is too much is dropped, oldest first."""
        if capacity < 1:
            raise ValueError(f"a queue holds at least one frame, not {capacity}")
        with self._changed:
            self._capacity = capacity
            while len(self._frames) > capacity:
                self._frames.popleft()
                self._num_dropped += 1

    def put_clip(self, frames: Sequence[Frame]) -> bool:
        with self._changed:
            if self._is_closed:
                return False
            self._frames.extend(frames)
            while len(self._frames) > self._capacity:
                self._frames.popleft()
                self._num_dropped += 1
            callbacks = self._announce()
        _call(callbacks)
        return True

    def _make_room(self) -> None:
        if len(self._frames) == self._capacity:
            self._frames.popleft()
            self._num_dropped += 1

    def _is_writable(self) -> bool:
        return True


class FileFrameQueue(FrameQueue):
    """For files: `put` waits for room, so that every frame is taken unless the reader abandons."""

    def _make_room(self) -> None:
        self._changed.wait_for(self._is_writable)

    def _is_writable(self) -> bool:
        return self._is_closed or len(self._frames) < self._capacity


def clip_of(frames: Sequence[Frame]) -> Clip:
    """One clip of frames of one size; its times are those of the first frame."""
    first = frames[0]
    pixels = np.stack([frame.pixels for frame in frames])
    return Clip(pixels=pixels, pts_s=first.pts_s, captured_s=first.captured_s)


def _call(callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        callback()
