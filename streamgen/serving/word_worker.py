"""Prompts that take long to encode are encoded on a thread of their own: streams go on meanwhile.

A large text encoder takes tenths of a second to seconds for a prompt, in which the thread that
drives the engine would draw nothing for anybody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from streamgen.errors import ConfigError
from streamgen.serving.prompts import PromptShelf

logger = logging.getLogger(__name__)

Words = tuple[PromptShelf, str]
"""A prompt, and where it is to be ready."""

T = TypeVar("T")


class Turn:
    """What keeps the requests of one stream in order."""

    def __init__(self) -> None:
        self.num_waiting = 0


class WordWorker:
    """Hands requests on, those with a new prompt after it has been encoded. For any thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="words")
        self._lock = threading.Lock()
        self._is_stopping = False

    def ask(self, turn: Turn, words: Words | None, post: Callable[[], Future[T]]) -> Future[T]:
        """`post` a request that needs a prompt, or none; after all that `turn` was asked before.

        What the future brings is that of the request's. Never waits.
        """
        with self._lock:
            is_next = turn.num_waiting == 0 and (words is None or words[0].is_ready(words[1]))
            if is_next or self._is_stopping:
                return post()
            turn.num_waiting += 1
            answer: Future[T] = Future()
            self._pool.submit(self._serve, turn, words, post, answer)
            return answer

    def stop(self) -> None:
        """Encode nothing more; what waits is handed on as it is."""
        with self._lock:
            self._is_stopping = True
        self._pool.shutdown(wait=False)

    def _serve(
        self,
        turn: Turn,
        words: Words | None,
        post: Callable[[], Future[T]],
        answer: Future[T],
    ) -> None:
        if words is not None and not self._is_stopping:
            shelf, prompt = words
            try:
                shelf.prepare(prompt)
            except ConfigError:
                pass  # whoever needs the prompt hears of it
            except Exception:
                logger.exception("a prompt could not be encoded")
        with self._lock:
            posted = post()
            turn.num_waiting -= 1
        posted.add_done_callback(lambda done: _pass_on(done, answer))


def _pass_on(done: Future[T], answer: Future[T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    error = done.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
