"""From what a user writes after -i to an open source; for -o see streamgen.media.outputs.

    -i film.mp4   -i picture.png   -i webcam:0   -i rtsp://...   (streamgen.media.sources)

One table: a new scheme is one entry, whose opener gets what stands after the colon. What says
nothing known is a ConfigError; what names something that cannot be opened is a SourceError.
"""

from __future__ import annotations

from streamgen.clock import Clock
from streamgen.errors import ConfigError
from streamgen.media.source import FrameSource
from streamgen.media.sources.catalogue import SOURCE_SCHEMES, SourceWishes
from streamgen.media.sources.video_file import VideoFileSource
from streamgen.media.specs import listed, path_of, split_spec
from streamgen.types import PictureSize


def open_source(
    spec: str, *, clock: Clock, size: PictureSize, fps: float | None = None, plays: int | None = 1
) -> FrameSource:
    """Open what -i names, as fast as it can be read; its owner closes it."""
    wishes = SourceWishes(clock=clock, size=size, fps=fps, plays=plays)
    scheme, rest = split_spec("-i", spec, SOURCE_SCHEMES, others=("a video or picture file",))
    if scheme is not None:
        return SOURCE_SCHEMES[scheme](rest, wishes)
    if spec == "-":
        raise ConfigError(f"-i - cannot be read; known: {listed(SOURCE_SCHEMES, ('a file',))}")
    return VideoFileSource(path_of(spec), clock=clock, fps=fps, plays=plays)
