"""From a stream to its outputs: the loop of every program that plays one, and its tidy end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from streamgen.clock import Clock
from streamgen.media.opening import open_source
from streamgen.media.pixels import Fit
from streamgen.media.source import FrameSource
from streamgen.media.sources.retiming import RealTimeSource
from streamgen.media.sources.video_file import VideoFileSource
from streamgen.serving.host import Host
from streamgen.serving.outputs import Outputs
from streamgen.types import Frame

FITS = {fit.name.lower(): fit for fit in Fit}
"""How an input picture is brought to the stream's size, by name."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream has come; `first_frame_s` is None before there is one."""

    num_frames: int
    video_s: float
    elapsed_s: float
    first_frame_s: float | None

    @property
    def frames_per_second(self) -> float:
        """Since the beginning: frames come a clip at a time, so a later start would flatter."""
        return self.num_frames / self.elapsed_s if self.elapsed_s > 0 else 0.0


def open_input(
    spec: str, host: Host, *, plays: int | None = 1, in_real_time: bool = False
) -> FrameSource:
    """Open what -i names at the rate of the host's streams; `plays` None repeats it for ever.

    A still picture is held for ever, as by a camera before which nothing moves.
    `in_real_time`: a film gives its frames at their moments, and those that nobody takes then are
    lost, as with a camera; otherwise it waits for whoever reads it.
    """
    clock = host.pipeline.clock

    def opened(plays: int | None) -> FrameSource:
        return open_source(spec, clock=clock, size=host.picture_size, fps=host.fps, plays=plays)

    source = opened(plays)
    if isinstance(source, VideoFileSource) and source.is_still and plays is not None:
        source.close()
        source = opened(None)
    if in_real_time and not source.facts.is_live:
        return RealTimeSource(source, clock)
    return source


class Playable(Protocol):
    """What can be played: a stream, or a recorded one."""

    @property
    def fps(self) -> float: ...

    @property
    def num_frames(self) -> int:
        """Frames handed out so far."""
        ...

    def next_clip(self) -> list[Frame]:
        """The next frames that there are; none at the end."""
        ...


def play(
    stream: Playable,
    outputs: Outputs,
    *,
    clock: Clock,
    report: Callable[[Progress], None],
    whole: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Progress:
    """Give a stream's frames to all outputs until it ends, nobody is left to see it, or Ctrl-C.

    An interruption is a clean end, once there is a frame: the outputs are finished. After any other
    failure they are abandoned, so that a film that stood there before stays. `whole` is entered
    around what an interruption would tear, and holds it back meanwhile. Raises the SinkError of an
    output that was lost, also if others went on to the end.
    """
    began_s = clock.now()
    progress = Progress(0, 0.0, 0.0, None)
    try:
        while frames := _next_clip(stream, outputs):
            with whole():
                progress = _after(progress, stream, clock.now() - began_s)
            if not outputs.put(frames):
                break
            report(progress)
    except KeyboardInterrupt:
        if not progress.num_frames:
            outputs.abort()
            raise
    except BaseException:
        outputs.abort()
        raise
    with contextlib.suppress(KeyboardInterrupt), whole():  # a second one: it ends already
        outputs.finish()
    num_frames = outputs.num_written
    return replace(progress, num_frames=num_frames, video_s=num_frames / stream.fps)


def _next_clip(stream: Playable, outputs: Outputs) -> list[Frame]:
    outputs.wait()
    return stream.next_clip()


def _after(progress: Progress, stream: Playable, elapsed_s: float) -> Progress:
    first_s = elapsed_s if progress.first_frame_s is None else progress.first_frame_s
    return Progress(stream.num_frames, stream.num_frames / stream.fps, elapsed_s, first_s)
