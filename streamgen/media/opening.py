"""From what a user writes after -i and -o to an open source or sink.

    -i film.mp4   -i picture.png   -i webcam:0     -i rtsp://...   (streamgen.media.sources)
    -o film.mp4   -o -             -o y4m:         -o raw:          -o null:

One table each: a new scheme is one entry, whose opener gets what stands after the colon. What says
nothing known is a ConfigError; what names something that cannot be opened is a SourceError
or a SinkError.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from streamgen.clock import Clock
from streamgen.errors import ConfigError, SinkError
from streamgen.media.sink import FrameSink, writing_failed
from streamgen.media.sinks.encoding import ENCODINGS
from streamgen.media.sinks.null import NullSink
from streamgen.media.sinks.pipe import RawPipeSink, Y4mPipeSink
from streamgen.media.sinks.video_file import VideoFileSink
from streamgen.media.source import FrameSource
from streamgen.media.sources.catalogue import SOURCE_SCHEMES, SourceWishes
from streamgen.media.sources.video_file import VideoFileSource
from streamgen.types import PictureSize

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)  # two letters: C: is a drive


@dataclass(frozen=True, slots=True)
class SinkWishes:
    """What the stream gives to its sink: pictures of `size`, `fps` of them a second."""

    size: PictureSize
    fps: float


def open_source(
    spec: str, *, clock: Clock, size: PictureSize, fps: float | None = None, plays: int | None = 1
) -> FrameSource:
    """Open what -i names, as fast as it can be read; its owner closes it."""
    wishes = SourceWishes(clock=clock, size=size, fps=fps, plays=plays)
    scheme, rest = _split("-i", spec, SOURCE_SCHEMES, others=("a video or picture file",))
    if scheme is not None:
        return SOURCE_SCHEMES[scheme](rest, wishes)
    if spec == "-":
        raise ConfigError(f"-i - cannot be read; known: {_listed(SOURCE_SCHEMES, ('a file',))}")
    return VideoFileSource(_path(spec), clock=clock, fps=fps, plays=plays)


def open_sink(spec: str, *, size: PictureSize, fps: float) -> FrameSink:
    """Open what -o names, for pictures of `size` at `fps`; its owner closes or aborts it."""
    wishes = SinkWishes(size=size, fps=fps)
    scheme, rest = _split("-o", spec, SINK_SCHEMES, others=("-", "a file", *ENCODINGS))
    if scheme is not None:
        return SINK_SCHEMES[scheme](rest, wishes)
    if spec == "-":
        return _open_y4m("", wishes)
    if spec.endswith("/") or os.path.isdir(_path(spec)):
        raise SinkError(f"{spec} names a folder; name a file in it")
    return VideoFileSink(_path(spec), size, fps=fps)


def _split(
    option: str, spec: str, schemes: Iterable[str], *, others: tuple[str, ...]
) -> tuple[str | None, str]:
    """The scheme of `spec` and what follows it; no scheme if it is a path or a dash."""
    if not spec.strip():
        raise ConfigError(f"{option} is empty; known: {_listed(schemes, others)}")
    match = _SCHEME.fullmatch(spec)
    if match is None:
        return None, spec
    scheme = match[1].lower()
    if scheme not in schemes:
        raise ConfigError(
            f"{option} {spec}: there is no {scheme}:, known: {_listed(schemes, others)}; "
            f"for a file of that name write ./{spec}"
        )
    return scheme, match[2]


def _listed(schemes: Iterable[str], others: tuple[str, ...]) -> str:
    return ", ".join([*(f"{scheme}:" for scheme in schemes), *others])


def _path(spec: str) -> Path:
    return Path(spec).expanduser()


def _open_null(rest: str, wishes: SinkWishes) -> FrameSink:
    del wishes
    _nothing_after("null:", rest)
    return NullSink()


def _open_raw(rest: str, wishes: SinkWishes) -> FrameSink:
    _nothing_after("raw:", rest)
    return RawPipeSink(_standard_output(), wishes.size)


def _open_y4m(rest: str, wishes: SinkWishes) -> FrameSink:
    _nothing_after("y4m:", rest)
    return Y4mPipeSink(_standard_output(), wishes.size, fps=wishes.fps)


def _nothing_after(scheme: str, rest: str) -> None:
    if rest:
        raise ConfigError(f"{scheme} takes nothing after the colon, so not {rest!r}; leave it out")


def _standard_output() -> BinaryIO:
    """A stream of its own, so that a pipe broken here leaves nothing unsent in sys.stdout."""
    try:
        if os.isatty(STANDARD_OUTPUT):
            raise SinkError("standard output is a terminal; pipe it: ... -o - | ffplay -")
        if sys.stdout is not None:  # in a program that began without one
            sys.stdout.flush()
        return os.fdopen(os.dup(STANDARD_OUTPUT), "wb")
    except OSError as error:
        raise writing_failed(error, "standard output") from error


STANDARD_OUTPUT = 1  # file descriptor

SINK_SCHEMES: Mapping[str, Callable[[str, SinkWishes], FrameSink]] = {
    "null": _open_null,
    "raw": _open_raw,
    "y4m": _open_y4m,
}
