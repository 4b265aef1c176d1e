"""A line of progress with a line of input behind it, on a terminal.

    film.mp4: 12.5 s of video, 200 frames, 98.1 frames/s  > a storm co_

The terminal stops echoing, so that what is typed and what is reported do not run through each
other; Ctrl-C goes on working. Where standard input is no terminal, or is another job's, nothing is
read from it. Knows neither streams nor prompts.
"""

from __future__ import annotations

import codecs
import os
import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType

try:
    import termios
except ImportError:  # Windows: prompts can be piped in, see --prompts -
    termios = None

ENTER, BACKSPACE, KILL_LINE, KILL_WORD = "\r\n", "\x7f\b", "\x15", "\x17"
ESCAPE = "\x1b"


class LineEditor:
    """The line being typed; control characters edit it, and it never grows beyond `longest`."""

    def __init__(self, longest: int = 2000) -> None:
        self.text = ""
        self._longest = longest

    def feed(self, typed: str) -> list[str]:
        """Take in what was typed; the lines that it completes."""
        lines: list[str] = []
        if typed.startswith(ESCAPE):  # an arrow or another key that we do not know
            return lines
        for character in typed:
            if character in ENTER:
                lines.append(self.text)
                self.text = ""
            elif character in BACKSPACE:
                self.text = self.text[:-1]
            elif character == KILL_LINE:
                self.text = ""
            elif character == KILL_WORD:
                self.text = "".join(self.text.rstrip().rpartition(" ")[:2])
            elif character.isprintable():
                self.text = (self.text + character)[: self._longest]
        return lines


class Console:
    """Reads lines from the terminal in a thread of its own, while it is entered."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._editor = LineEditor()
        self._lock = threading.Lock()
        self._status = ""
        self._restore: Callable[[], None] | None = None
        self._fd = -1

    @property
    def is_reading(self) -> bool:
        return self._restore is not None

    def show(self, status: str) -> None:
        """Put `status` into the line, before what is being typed."""
        with self._lock:
            self._status = status
            self._draw()

    def __enter__(self) -> Console:
        if termios is None or not _is_ours():
            return self
        self._fd = sys.stdin.fileno()
        before, mode = termios.tcgetattr(self._fd), termios.tcgetattr(self._fd)
        self._restore = partial(termios.tcsetattr, self._fd, termios.TCSADRAIN, before)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)
        threading.Thread(target=self._read, name="console", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        restore, self._restore = self._restore, None
        if restore is not None:
            restore()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while self._restore is not None:
            try:
                data = os.read(self._fd, 1024)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                lines = self._editor.feed(decoder.decode(data))
                self._draw()
            for line in lines:
                self._take(line)

    def _draw(self) -> None:
        if self._restore is None or not sys.stderr.isatty():
            return
        typed = f"  > {self._editor.text}" if self._editor.text else ""
        width = shutil.get_terminal_size().columns - 1
        line = f"{self._status}{typed}"
        shown = line if len(line) <= width else line[-width:]
        print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)


def _is_ours() -> bool:
    """Whether standard input is a terminal, and this program the one that it talks to."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
