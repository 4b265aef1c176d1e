"""A sink in a process of its own, fed through a pipe: it can be killed, whatever it hangs in.

FFmpeg's network code blocks for minutes where a peer is silent, and PyAV opens outputs without
letting other Python threads run: in this process, a dead server would stop generation. Knows
neither protocols nor codecs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Sequence
from typing import BinaryIO

from streamgen.clock import MonotonicClock
from streamgen.errors import SinkError
from streamgen.media.sink import SinkClosed

READY = b"ready\n"  # what a child prints that says when it has opened its output
MAX_TOLD_BYTES = 2000  # of what a child says of its end
WATCH_EVERY_S = 0.2


class Child:
    """A program that reads frames from its standard input, and says on standard output why it ends.

    Each `send` and `finish` that takes longer than `timeout_s` ends with the child being killed.
    Used by one thread; the thread inside only watches the time.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        says_ready: bool,
        open_timeout_s: float,
        timeout_s: float,
        env: dict[str, str] | None = None,
    ) -> None:
        """Start `command`; wait for READY if it says so. Raises SinkError.

        `name` stands at the beginning of each message.
        """
        self._name = name
        self._clock = MonotonicClock()
        self._busy_until_s: float | None = None
        self._has_hung = False
        self._is_over = threading.Event()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=env,
                start_new_session=True,  # Ctrl-C is for this program, which then ends the child
            )
        except OSError as error:
            raise SinkError(f"{name}: cannot start {command[0]}: {error.strerror}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._told = b""
        self._watcher = threading.Thread(target=self._watch, name=f"watch {name}", daemon=True)
        self._watcher.start()
        self._timeout_s = timeout_s
        if says_ready:
            self._busy_until_s = self._clock.now() + open_timeout_s
            while (line := self._process.stdout.readline()) != READY:
                self._told += line
                if not line:
                    raise self._ended()
            self._busy_until_s = None

    def send(self, *parts: bytes | memoryview) -> None:
        """Give the child some bytes. Raises SinkError, or SinkClosed if it ended successfully."""
        self._busy_until_s = self._clock.now() + self._timeout_s
        try:
            for part in parts:
                _write_all(self._input, part)
        except OSError as error:
            raise self._ended() from error
        finally:
            self._busy_until_s = None

    def finish(self) -> None:
        """Say that nothing follows and wait for the child's end. Raises SinkError if it failed."""
        self._busy_until_s = self._clock.now() + self._timeout_s
        with contextlib.suppress(OSError):
            self._input.close()
        error = self._ended()
        if isinstance(error, SinkError):
            raise error

    def kill(self) -> None:
        """End the child without ceremony; never raises."""
        self._is_over.set()
        with contextlib.suppress(OSError):
            self._input.close()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ended(self) -> SinkError | SinkClosed:
        """Why the child has ended, as an exception; waits for its end."""
        stdout = self._process.stdout
        assert stdout is not None
        if not self._process.stdin.closed:  # type: ignore[union-attr]
            with contextlib.suppress(OSError):
                self._input.close()
        if self._busy_until_s is None:
            self._busy_until_s = self._clock.now() + self._timeout_s
        told = self._told
        while data := stdout.read(4096):
            told = (told + data)[-MAX_TOLD_BYTES:]
        code = self._process.wait()
        self.kill()
        if self._has_hung:
            return SinkError(f"{self._name} does not take the pictures (for {self._timeout_s:g} s)")
        if code == 0:
            return SinkClosed(f"{self._name} has ended")
        lines = told.decode("utf-8", "replace").strip().splitlines() or [f"exit code {code}"]
        return SinkError(f"{self._name}: {lines[-1]}")

    def _watch(self) -> None:
        while not self._is_over.wait(WATCH_EVERY_S):
            until_s = self._busy_until_s
            if until_s is not None and self._clock.now() > until_s:
                self._has_hung = True
                self._process.kill()
                return


def _write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(file.fileno(), view) :]
