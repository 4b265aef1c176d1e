"""What can be typed while a stream runs: a new prompt, or a command with a slash before it."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO

from streamgen.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from streamgen.serving.stream import Stream

TRACE_S = 10.0  # of a trace if nobody says
logger = logging.getLogger(__name__)

HELP = (
    "a line is a new prompt, {one: 2 | another: 1} a mix of two; or /over 4 PROMPT (go over to it "
    "within 4 chunks), /lora NAME 0.5, /strength 0.5, /seed 7, /reset (begin anew), /pause, "
    "/resume, /trace FILE 5 (what the last 5 seconds did), /quit, /help"
)


class TraceWriter(Protocol):
    """Writes what the last so many seconds of ticks did; raises SinkError."""

    def __call__(self, path: str, /, *, last_s: float) -> None: ...


class Commands:
    """Lines that any thread puts in, obeyed between two frames by the thread of the stream.

    A line that cannot be obeyed is told in one line of `tell`, and the stream goes on as it was.
    """

    def __init__(
        self, tell: Callable[[str], None], *, write_trace: TraceWriter | None = None
    ) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._tell = tell
        self._write_trace = write_trace
        self._is_paused = False

    def put(self, line: str) -> None:
        """Note a line; it counts from the next chunk on."""
        if line.strip():
            self._lines.put(line.strip())

    def obey(self, stream: Stream) -> None:
        """Do what has been asked for; waits while the stream is paused.

        Raises KeyboardInterrupt for /quit: the same tidy end as Ctrl-C.
        """
        while self._is_paused or not self._lines.empty():
            line = self._lines.get()
            try:
                self._follow(line, stream)
            except (ConfigError, SinkError) as error:
                self._tell(" ".join(str(error).splitlines()))

    def _follow(self, line: str, stream: Stream) -> None:
        if not line.startswith("/"):
            stream.prompt = line
            if stream.unknown_words:
                self._tell(f"the model does not know: {', '.join(stream.unknown_words[:12])}")
            return
        word, _, value = line[1:].partition(" ")
        command = word.lower()
        if command == "over":
            chunks, _, prompt = value.strip().partition(" ")
            stream.change_prompt(prompt, over_chunks=_whole(chunks))
        elif command == "lora":
            name, _, scale = value.strip().rpartition(" ")
            stream.lora_scales = {name.strip(): _number(scale)}
        elif command == "strength":
            stream.strength = _number(value)
        elif command == "seed" or (command == "reset" and value):
            stream.reset(seed=int(_number(value)))
        elif command == "reset":
            stream.reset()
        elif command in ("pause", "resume"):
            self._is_paused = command == "pause"
        elif command == "trace":
            path, _, seconds = value.strip().rpartition(" ")
            if not path:
                path, seconds = value.strip(), str(TRACE_S)
            if not path or self._write_trace is None:
                raise ConfigError("name a file for the trace; as in /trace busy.json 5")
            self._write_trace(path, last_s=_number(seconds))
            self._tell(f"{path} has the last {_number(seconds):g} s of ticks")
        elif command == "quit":
            raise KeyboardInterrupt
        elif command == "help":
            self._tell(HELP)
        else:
            raise ConfigError(f"there is no /{word}; {HELP}")


def read_lines(source: TextIO, commands: Commands) -> None:
    """Hand on every line of `source` from a thread of its own, which dies with the program."""

    def pump() -> None:
        try:
            for line in source:
                commands.put(line)
        except (OSError, ValueError) as error:  # closed under our hands, or not UTF-8
            logger.warning("no more prompts from standard input: %s", error)

    threading.Thread(target=pump, name="prompt-reader", daemon=True).start()


def tell_on_stderr(line: str) -> None:
    """One line for a person; what stood in the line of progress gives way."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{start}streamgen: {line}", file=sys.stderr, flush=True)


def _whole(value: str) -> int:
    number = _number(value)
    if number != int(number):
        raise ConfigError(f"{value} chunks are no whole number; as in /over 4 a storm at sea")
    return int(number)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{value!r} is no number; as in /strength 0.5 or /seed 7") from None
