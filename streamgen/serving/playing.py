"""From a stream to an output: the loop of every program that plays one, and its tidy end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from streamgen.clock import Clock
from streamgen.errors import ConfigError
from streamgen.media.opening import open_sink, open_source
from streamgen.media.pixels import Fit, enlarged
from streamgen.media.sink import FrameSink, SinkClosed
from streamgen.media.source import FrameSource
from streamgen.serving.host import Host
from streamgen.serving.stream import Stream
from streamgen.types import Frame, PictureSize

MAX_ZOOM = 16
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


def open_input(spec: str, host: Host, *, plays: int | None = 1) -> FrameSource:
    """Open what -i names at the rate of the host's streams; `plays` None repeats it for ever."""
    pipeline = host.pipeline
    return open_source(
        spec, clock=pipeline.clock, size=host.picture_size, fps=host.fps, plays=plays
    )


def is_endless(spec: str) -> bool:
    """Whether what -i names goes on until somebody stops it, though it is played once."""
    return spec.strip().lower() == "synthetic:"


class Output:
    """A sink for one stream's frames, enlarged by a whole number if wished."""

    def __init__(self, spec: str, *, size: PictureSize, fps: float, zoom: int = 1) -> None:
        """Open what -o names. Raises ConfigError or SinkError."""
        if not 1 <= zoom <= MAX_ZOOM:
            raise ConfigError(f"zoom {zoom} is not in 1 to {MAX_ZOOM}; choose one that is")
        self._zoom = zoom
        self._fps = fps
        outer = PictureSize(size.height * zoom, size.width * zoom)
        self._sink: FrameSink = open_sink(spec, size=outer, fps=fps)

    def play(
        self,
        stream: Stream,
        *,
        clock: Clock,
        report: Callable[[Progress], None],
        whole: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> Progress:
        """Write a stream's frames until it ends, its reader leaves, or Ctrl-C.

        An interruption is a clean end, once there is a frame: the output is finished. After any
        other failure the output is abandoned, so that a film that stood there before stays.
        `whole` is entered around what an interruption would tear, and holds it back meanwhile.
        """
        began_s = clock.now()
        progress = Progress(0, 0.0, 0.0, None)
        try:
            for frame in stream:
                with whole():
                    self._sink.write(self._enlarged(frame))
                    progress = self._after(progress, stream.num_frames, clock.now() - began_s)
                report(progress)
        except SinkClosed:
            pass
        except KeyboardInterrupt:
            if not progress.num_frames:
                self._sink.abort()
                raise
        except BaseException:
            self._sink.abort()
            raise
        with contextlib.suppress(KeyboardInterrupt), whole():  # a second one: it ends already
            self._sink.close()
        return progress

    def _after(self, progress: Progress, num_frames: int, elapsed_s: float) -> Progress:
        first_s = elapsed_s if progress.first_frame_s is None else progress.first_frame_s
        return Progress(num_frames, num_frames / self._fps, elapsed_s, first_s)

    def abandon(self) -> None:
        """Give up an output that nothing was played to."""
        self._sink.abort()

    def _enlarged(self, frame: Frame) -> Frame:
        if self._zoom == 1:
            return frame
        return Frame(enlarged(frame.pixels, self._zoom), frame.pts_s, frame.captured_s)
