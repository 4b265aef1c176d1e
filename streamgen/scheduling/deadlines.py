"""When a session's pictures are due, and whether they came in time. Host floats only."""

from __future__ import annotations

import math

from streamgen.scheduling.service import ServiceLevel


class Deadlines:
    """Due times of one session's chunks, by its service level.

    With a latency, a chunk is due so long after the capture of its oldest picture. Without, it is
    due when the viewer, who began with the first chunk, has seen all before it; a stall moves the
    rest of the playback with it.
    """

    def __init__(self, service: ServiceLevel | None, *, opened_s: float, frame_s: float) -> None:
        """`frame_s`: how long one picture is shown."""
        self._service = service
        self._opened_s = opened_s
        self._frame_s = frame_s
        self._began_s: float | None = None
        """When playback of pts 0 began, stalls included; None before the first pictures."""

    @property
    def is_playback(self) -> bool:
        return self._service is not None and self._service.latency_s is None

    def due_s(self, *, captured_s: float | None, pts_s: float) -> float:
        """When a chunk is to be handed over; infinite without a service level."""
        service = self._service
        if service is None:
            return math.inf
        first_s = self._opened_s + service.first_frame_s
        if service.latency_s is not None and captured_s is not None:
            due_s = captured_s + service.latency_s
            return max(due_s, first_s) if self._began_s is None else due_s
        return (first_s if self._began_s is None else self._began_s) + pts_s

    def wait_for_viewer(self, now_s: float, *, pts_s: float, num_waiting_frames: int) -> None:
        """Note that nothing could start because the viewer is behind: that is no stall."""
        if self.is_playback and self._began_s is not None:
            seen_until_s = now_s + num_waiting_frames * self._frame_s
            self._began_s = max(self._began_s, seen_until_s - pts_s)

    def deliver(self, now_s: float, *, pts_s: float, due_s: float, has_spare: bool) -> float:
        """Note that a chunk was handed over; returns by how much the viewer stalls, or 0.

        `has_spare` says whether the viewer still has pictures of before.
        """
        if self._began_s is None:
            self._began_s = now_s - pts_s
            return 0.0
        late_s = now_s - due_s
        if not self.is_playback or late_s <= 0 or has_spare:
            return 0.0
        self._began_s += late_s
        return late_s


class SessionReport:
    """What became of one session's work: counts, for whoever shows or checks them."""

    def __init__(self) -> None:
        self.first_frame_s: float | None = None
        self.num_chunks = 0
        self.num_late = 0
        """Chunks handed over after they were due, or that stalled the viewer."""
        self.num_dropped = 0
        """Clips of the input that nobody drew, though they were due."""
        self.num_frames_lost = 0
        """Pictures of the input that nobody drew."""
        self.num_held = 0
        """Clips that were not drawn because the picture stood still."""
        self.num_changes = 0
        """Changes of the rung."""
        self.last: tuple[float, float] | None = None
        """When the newest chunk was handed over, and its place in the stream."""

    @property
    def num_due(self) -> int:
        return self.num_chunks + self.num_dropped

    @property
    def num_missed(self) -> int:
        return self.num_late + self.num_dropped
