"""All outputs of one stream: opened together, each in its own thread, and ended together.

Whoever produces frames waits for an output only if every output is a file or a pipe; as soon as one
of them is live, production follows the clock and no output can hold up another one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from streamgen.clock import Clock
from streamgen.errors import ConfigError
from streamgen.media.frame_queue import FileFrameQueue, LiveFrameQueue
from streamgen.media.outlet import LiveOutlet, OutputStats, Pace, SinkPlan
from streamgen.media.outputs import plan_sink
from streamgen.media.pacing import ConstantRate, Pacer, Throttle, Timing
from streamgen.media.pixels import enlarged
from streamgen.media.sink import FrameSink
from streamgen.media.writer import FileWriter, LiveWriter, SinkWriter
from streamgen.metrics.export import Metrics
from streamgen.types import Frame, PictureSize

logger = logging.getLogger(__name__)

MAX_ZOOM = 16
QUEUE_S = 1.0  # of video that waits for one output at most, where waiting is allowed
RESERVE_S = 15.0  # of video that a file beside live outputs may be late
RESERVE_BYTES = 512_000_000  # and no more than so much of it
AHEAD_S = 0.5  # by which production may be ahead of live outputs
LIVE_END_S = 5.0  # how long a live output may take to end
FILE_END_S = 60.0  # and a file, whose end must be written


def check_outputs(
    specs: Sequence[str], *, size: PictureSize, fps: float, clock: Clock, zoom: int = 1
) -> None:
    """Before a model is loaded: ConfigError or SinkError for what `Outputs` could not open, as far
    as that can be known while nothing is opened, made or changed."""
    for plan in _planned(specs, size=_zoomed(size, zoom), fps=fps, clock=clock):
        plan.check()


class Outputs:
    """What -o names, each as often as it is given; frames are enlarged by a whole number if wished.

    `put` from one thread; then exactly one of `finish` and `abort`.
    """

    def __init__(
        self,
        specs: Sequence[str],
        *,
        size: PictureSize,
        fps: float,
        clock: Clock,
        metrics: Metrics,
        zoom: int = 1,
        input_is_live: bool = False,
    ) -> None:
        """Open all of them. Raises ConfigError or SinkError, and then nothing is left behind.

        `input_is_live`: frames come at their own time, and who waits for an output loses some.
        """
        self._zoom = zoom
        self._clock = clock
        self._size = _zoomed(size, zoom)
        self._fps = fps
        plans = _planned(specs, size=self._size, fps=fps, clock=clock)
        self._is_live = input_is_live or any(plan.pace is not Pace.ALL for plan in plans)
        is_paced = any(plan.pace is not Pace.ALL for plan in plans)
        self._throttle = Throttle(clock, fps=fps, ahead_s=AHEAD_S) if is_paced else None
        self.stats = {plan.name: OutputStats(metrics, clock, output=plan.name) for plan in plans}
        self._writers: list[SinkWriter] = []
        self._told: set[str] = set()
        sinks: list[FrameSink | None] = []
        try:
            for plan in plans:
                sinks.append(None if plan.waits_for_reader else plan.open())
        except BaseException:
            for sink in sinks:
                if sink is not None:
                    sink.abort()
            raise
        for plan, sink in zip(plans, sinks, strict=True):
            self._writers.append(self._writer(plan, sink))
        self._lasting = [
            writer for writer, plan in zip(self._writers, plans, strict=True)
            if plan.pace is Pace.ALL
        ]  # fmt: skip
        for writer in self._writers:
            writer.start()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.stats)

    @property
    def num_written(self) -> int:
        """Frames in the files and pipes if there are any, else those that live outputs showed."""
        writers = self._lasting or self._writers
        return max(self.stats[writer.name].written.value for writer in writers)

    def wait(self) -> None:
        """Sleep while live outputs have enough to show; returns at once if there are none."""
        if self._throttle is not None:
            self._throttle.wait()

    def put(self, frames: Sequence[Frame]) -> bool:
        """Give the frames of a clip to all outputs; False if none of them is left."""
        shown = [self._enlarged(frame) for frame in frames]
        goes_on = False
        for writer in self._writers:
            goes_on |= writer.put(shown)
        self._tell_failures(is_last=not goes_on)
        if self._throttle is not None:
            self._throttle.made(len(frames))
        return goes_on

    def finish(self) -> None:
        """Write what waits and complete every output. Raises the first SinkError that there was."""
        for writer in self._writers:
            writer.finish()
        self._join()
        for writer in self._writers:
            if writer.failure is not None:
                raise writer.failure

    def abort(self) -> None:
        """End all outputs of a run that failed elsewhere; never raises."""
        for writer in self._writers:
            writer.abort()
        self._join()

    def _join(self) -> None:
        for writer in self._writers:
            writer.join(FILE_END_S if writer in self._lasting else LIVE_END_S)

    def _tell_failures(self, *, is_last: bool) -> None:
        """Say at once that one of several is lost; the last one ends the run, which says it."""
        for writer in self._writers:
            if writer.failure is None or writer.name in self._told or is_last:
                continue
            self._told.add(writer.name)
            logger.warning("%s; the other outputs go on", writer.failure)

    def _writer(self, plan: SinkPlan, sink: FrameSink | None) -> SinkWriter:
        stats = self.stats[plan.name]
        second = max(1, round(self._fps * QUEUE_S))
        if plan.pace is Pace.ALL:
            assert sink is not None
            queue = LiveFrameQueue(self._reserve()) if self._is_live else FileFrameQueue(second)
            return FileWriter(plan.name, sink, queue, stats)
        pacer = Pacer(self._clock, content_fps=self._fps, max_waiting=max(2, second))
        timing: Timing = pacer
        if plan.pace is Pace.CONSTANT:
            timing = ConstantRate(pacer, self._clock, fps=plan.fps or self._fps)
        outlet = LiveOutlet(plan, sink, timing, self._clock, stats)
        return LiveWriter(plan.name, outlet, LiveFrameQueue(2 * second), self._clock)

    def _reserve(self) -> int:
        by_memory = RESERVE_BYTES // (self._size.height * self._size.width * 3)
        return max(2, min(round(self._fps * RESERVE_S), by_memory))

    def _enlarged(self, frame: Frame) -> Frame:
        if self._zoom == 1:
            return frame
        return replace(frame, pixels=enlarged(frame.pixels, self._zoom))


def _zoomed(size: PictureSize, zoom: int) -> PictureSize:
    if not 1 <= zoom <= MAX_ZOOM:
        raise ConfigError(f"zoom {zoom} is not in 1 to {MAX_ZOOM}; choose one that is")
    return PictureSize(size.height * zoom, size.width * zoom)


def _planned(
    specs: Sequence[str], *, size: PictureSize, fps: float, clock: Clock
) -> list[SinkPlan]:
    plans = [plan_sink(spec, size=size, fps=fps, clock=clock) for spec in specs]
    names = [plan.name for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"-o {name} is given {names.count(name)} times; give it once")
    return plans
