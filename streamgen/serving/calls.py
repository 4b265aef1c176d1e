"""Work that any thread wants done in one certain thread, with its results as futures."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from streamgen.errors import StreamGenError

T = TypeVar("T")


class Calls:
    """Calls that wait for the thread that serves them. Shared by all threads."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], object], Future[object]] | None]
        self._waiting = queue.SimpleQueue()

    def add(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done; its result or error is the future's."""
        future: Future[T] = Future()
        self._waiting.put((work, future))  # pyright: ignore[reportArgumentType]
        return future

    def wake(self) -> None:
        """Let a `serve` that waits return."""
        self._waiting.put(None)

    def serve(self, *, must_wait: bool) -> None:
        """Do all that was asked for, in the caller's thread; `must_wait` sleeps until something is.

        What a call raises is its future's, whatever it is.
        """
        while must_wait or not self._waiting.empty():
            must_wait = False
            entry = self._waiting.get()
            if entry is not None:
                _answer(*entry)

    def refuse(self, reason: str) -> None:
        """Let everybody who waits hear a StreamGenError: nobody serves any more."""
        while not self._waiting.empty():
            entry = self._waiting.get()
            if entry is not None and not entry[1].done():
                entry[1].set_exception(StreamGenError(reason))


def _answer(work: Callable[[], object], future: Future[object]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # whoever asked decides what it means
        future.set_exception(error)
