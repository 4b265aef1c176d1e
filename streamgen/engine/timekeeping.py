"""What work took, for the latency model, the metrics and the trace.

A device that works by itself has done a piece of work some time after it was asked for; then, and
not before, it is known how long that took, by the device's own clock.
"""

from __future__ import annotations

from collections import deque

from streamgen.engine.batch import Started, Timing
from streamgen.engine.clips import Arrival
from streamgen.engine.lanes import Stretch
from streamgen.engine.meters import ServiceMeters
from streamgen.metrics.export import Metrics
from streamgen.metrics.trace import Span, Trace
from streamgen.scheduling.latency import LatencyModel
from streamgen.types import SessionId

TRACK = "engine"


class Timekeeper:
    """Teaches a LatencyModel, and keeps encodings whose end is not known yet."""

    def __init__(
        self, latency: LatencyModel, meters: ServiceMeters, metrics: Metrics, trace: Trace
    ) -> None:
        self._latency = latency
        self._meters = meters
        self._trace = trace
        self._tick_seconds = metrics.summary("streamgen_tick_seconds", "Seconds of a batch.")
        self._encodings: deque[tuple[SessionId, int, Stretch]] = deque()

    def denoised(self, timings: tuple[Timing, ...], now_s: float) -> None:
        """Batches have become known to be through."""
        for timing in timings:
            error = self._latency.denoise.observe(
                timing.num_frames, timing.seconds, calls=timing.calls
            )
            self._meters.model_error["denoise"].add(error)
            self._tick_seconds.add(timing.seconds)
            facts = {"frames": timing.num_frames, "calls": timing.calls}
            self._trace.add(Span("denoise", TRACK, now_s - timing.seconds, now_s, facts))

    def encoded(
        self, session: SessionId, started: Started, *, began_s: float, now_s: float
    ) -> None:
        """A chunk has been started from a clip; the device may still be encoding that."""
        if started.encoding is None:
            self._encoded(session, started.num_frames, now_s - began_s, now_s)
        else:
            self._encodings.append((session, started.num_frames, started.encoding))

    def decoded(self, session: SessionId, arrival: Arrival, now_s: float) -> None:
        """A clip has arrived."""
        device_s = arrival.clip.device_s()
        took_s = now_s - arrival.began_s if device_s is None else device_s
        error = self._latency.decode.observe(arrival.num_decoded, took_s)
        self._meters.model_error["decode"].add(error)
        self._trace.add(Span("decode", TRACK, now_s - took_s, now_s, {"session": session}))

    def look(self, now_s: float) -> None:
        """Take in the encodings that have come to an end since the last look."""
        while self._encodings:
            session, num_frames, encoding = self._encodings[0]
            seconds = encoding.seconds()
            if seconds is None:
                return
            self._encodings.popleft()
            self._encoded(session, num_frames, seconds, now_s)

    def _encoded(self, session: SessionId, num_frames: int, took_s: float, now_s: float) -> None:
        error = self._latency.encode.observe(num_frames, took_s)
        self._meters.model_error["encode"].add(error)
        self._trace.add(Span("encode", TRACK, now_s - took_s, now_s, {"session": session}))
