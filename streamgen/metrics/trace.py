"""Spans of time in a bounded buffer, shown by Chrome (chrome://tracing) or ui.perfetto.dev.

The newest spans stay; how many older ones had to go is counted. Knows no files but the one that
`write` is given, and takes its time from a Clock.
"""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamgen.clock import Clock
from streamgen.metrics.json_value import Json

_NO_ARGS: Mapping[str, str | int | float] = {}


@dataclass(frozen=True, slots=True)
class Span:
    """What happened on a track (a thread, a device, a rank) from `start_s` to `end_s`."""

    name: str
    track: str
    start_s: float
    end_s: float
    args: Mapping[str, str | int | float]


class Trace:
    """The last `capacity` spans of one process; a capacity of 0 records nothing."""

    def __init__(self, clock: Clock, *, capacity: int, process: int = 0) -> None:
        """`process` tells ranks apart when their files are shown together."""
        if capacity < 0:
            raise ValueError(f"capacity must be at least 0, not {capacity}")
        self._clock = clock
        self._process = process
        self._lock = threading.Lock()
        self._spans: deque[Span] = deque(maxlen=capacity)
        self._num_dropped = 0

    @contextmanager
    def span(
        self,
        name: str,
        *,
        track: str | None = None,
        args: Mapping[str, str | int | float] = _NO_ARGS,
    ) -> Generator[None, None, None]:
        """Record how long the body takes, also when it raises; the track is the thread's name."""
        start_s = self._clock.now()
        try:
            yield
        finally:
            self.add(
                Span(
                    name=name,
                    track=threading.current_thread().name if track is None else track,
                    start_s=start_s,
                    end_s=self._clock.now(),
                    args=args,
                )
            )

    def add(self, span: Span) -> None:
        """Record a span that was timed elsewhere, on the same clock."""
        if span.end_s < span.start_s:
            raise ValueError(f"span {span.name!r} ends at {span.end_s} before {span.start_s}")
        if not self._spans.maxlen:
            self._num_dropped += 1
            return
        with self._lock:
            self._num_dropped += len(self._spans) == self._spans.maxlen
            self._spans.append(span)

    def spans(self) -> tuple[Span, ...]:
        """Those in the buffer, in the order in which they ended."""
        with self._lock:
            return tuple(self._spans)

    @property
    def num_dropped(self) -> int:
        return self._num_dropped

    def to_chrome(self, *, last_s: float = math.inf) -> dict[str, Json]:
        """The spans as complete events ("ph": "X") in microseconds, tracks as threads.

        Only those that ended in the last `last_s` seconds.

        Format: "Trace Event Format" of the Chromium project, sections "Complete Events" and
        "Metadata Events".
        """
        since_s = self._clock.now() - last_s
        spans = [span for span in self.spans() if span.end_s >= since_s]
        track_ids = {track: i for i, track in enumerate(dict.fromkeys(s.track for s in spans))}
        events: list[Json] = [
            self._event("M", "thread_name", track_id, args={"name": track})
            for track, track_id in track_ids.items()
        ]
        for span in spans:
            event = self._event("X", span.name, track_ids[span.track], args=dict(span.args))
            event["ts"] = span.start_s * 1e6
            event["dur"] = (span.end_s - span.start_s) * 1e6
            events.append(event)
        return {
            "traceEvents": events,
            "displayTimeUnit": "ms",
            "otherData": {"num_dropped": self.num_dropped},
        }

    def write(self, path: Path, *, last_s: float = math.inf) -> None:
        """Write `to_chrome` as JSON. Raises OSError if the file cannot be written."""
        path.write_text(json.dumps(self.to_chrome(last_s=last_s)), encoding="utf-8")

    def _event(
        self, phase: str, name: str, track_id: int, *, args: dict[str, Json]
    ) -> dict[str, Json]:
        return {
            "ph": phase,
            "name": name,
            "pid": self._process,
            "tid": track_id,
            "args": args,
        }
