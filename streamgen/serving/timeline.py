"""Prompts with the times from which they count, as a user writes them into a file.

    # a night in three lines
    0:00 a red ball over a green field
    0:10 a storm comes
    1:02:03.5 the sun rises

Knows neither streams nor models.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamgen.errors import ConfigError
from streamgen.serving.prompts import check_prompt

MAX_FILE_BYTES = 1_000_000  # a longer file is none of prompts
EARLY_S = 1e-6  # by which a chunk may begin before a prompt's time and still follow it
_LINE = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2}(?:\.\d{1,6})?)\s+(\S.*)")


@dataclass(frozen=True, slots=True)
class TimedPrompt:
    """`prompt` counts from the first chunk that begins at `time_s` of the stream or later."""

    time_s: float
    prompt: str


class PromptTimeline:
    """What is still to come, in order; each prompt is taken once."""

    def __init__(self, prompts: Sequence[TimedPrompt]) -> None:
        self._waiting = deque(sorted(prompts, key=lambda timed: timed.time_s))

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts that are still to come."""
        return tuple(timed.prompt for timed in self._waiting)

    def due(self, time_s: float) -> str | None:
        """The newest prompt whose time has come by `time_s`; None if there is no new one."""
        newest: str | None = None
        while self._waiting and self._waiting[0].time_s <= time_s + EARLY_S:
            newest = self._waiting.popleft().prompt
        return newest


def read_prompt_file(path: Path) -> list[TimedPrompt]:
    """The prompts of a file in the order of their times.

    Raises ConfigError, with the line, for what cannot be meant.
    """
    try:
        data = path.read_bytes()[: MAX_FILE_BYTES + 1]
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the name") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8; save it as such") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is longer than {MAX_FILE_BYTES} bytes; is it the right file?")
    prompts: list[TimedPrompt] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            prompts.append(_timed(line.strip(), f"{path}:{number}"))
    if not prompts:
        raise ConfigError(f"{path} has no prompts; write lines as: 0:10 a storm comes")
    times_s = [timed.time_s for timed in prompts]
    twice = next((time_s for time_s in times_s if times_s.count(time_s) > 1), None)
    if twice is not None:
        raise ConfigError(f"{path} has two prompts at {twice:g} s; leave one")
    return sorted(prompts, key=lambda timed: timed.time_s)


def _timed(line: str, place: str) -> TimedPrompt:
    match = _LINE.fullmatch(line)
    if match is None or float(match[3]) >= 60 or (match[1] and int(match[2]) >= 60):
        raise ConfigError(f"{place}: {line[:60]!r} is no prompt; write: 0:10 a storm comes")
    try:
        check_prompt(match[4])
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    seconds = int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])
    return TimedPrompt(seconds, match[4])
