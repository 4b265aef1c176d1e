"""One session as the mirror sees it: what it demands, its input, its chunks, its viewer.

Host numbers only; time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from streamgen.scheduling.deadlines import Deadlines, SessionReport
from streamgen.scheduling.plan import Candidate, Pass, SessionView
from streamgen.scheduling.service import ServiceLevel
from streamgen.types import SessionId

QUEUE_CLIPS = 4  # clips of live input that may wait; then the oldest is dropped
OUTPUT_CLIPS = 4  # finished clips that may wait for a viewer
MAX_SKIPS = 10  # still clips held in a row


@dataclass(frozen=True, slots=True)
class Demand:
    """What a session asks of the engine on one rung of its ladder."""

    period_s: float
    """Seconds of video in a chunk."""
    collect_s: float
    """From the capture of a clip's first picture until it is complete; 0 without an input."""
    steps: int
    context_passes: int
    """Passes after the pictures are there: 1 in `clean` cache mode."""
    rows: int
    """Rows of a pass."""
    frames: float
    """Latent frames of a row, a smaller picture counting as less."""
    in_flight: int
    """Chunks of the session that can be on the ladder at once."""
    clip_frames: int
    """Pictures that are drawn of a chunk."""
    cache_rows: int
    tiny_codec: bool = False
    skips_still: bool = False
    units: int = 1
    """Clips of the input that one chunk takes: more at a lower rate."""


@dataclass(slots=True)
class Chunk:
    """A chunk on the ladder."""

    chunk: int
    captured_s: float
    pts_s: float
    due_s: float
    ready_s: float
    next_step: int = 0
    is_busy: bool = False
    held: int = 0
    candidate: Candidate | None = None
    """Its next pass, once somebody has asked for it."""


class Lane:
    """One session of the mirror: its input, its chunks, its viewer."""

    def __init__(
        self,
        session: SessionId,
        service: ServiceLevel,
        rungs: tuple[Demand, ...],
        *,
        opened_s: float,
        rung: int = 0,
        is_still: Callable[[int], bool] | None = None,
        viewer_rate: float = 1.0,
    ) -> None:
        """`is_still` says of a clip of the input, by number, whether it looks as the one before;
        `viewer_rate` below 1 is a viewer who takes clips more slowly than they play."""
        self.session = session
        self.service = service
        self.rungs = rungs
        self.rung = self.wanted_rung = rung
        self.demand = rungs[rung]
        self.opened_s = opened_s
        self.report = SessionReport()
        self.deadlines = Deadlines(service, opened_s=opened_s, frame_s=0.0)
        self.is_live = service.latency_s is not None
        self.chunks: list[Chunk] = []
        self.next_chunk = 0
        self.room_since_s = opened_s
        self.is_asleep = False
        """Whether its view has nothing that can run, and stays as it is until `next_event_s`."""
        self.lateness_s: list[float] = []
        self.ages_s: list[float] = []
        self._unit_s = rungs[0].period_s / rungs[0].units
        self._collect_s = rungs[0].collect_s
        self._arrived = 0  # clips of the input when it was last looked at
        self._num_taken = 0
        self._num_skipped = 0
        self._is_still = is_still
        self._next_pts_s = 0.0
        self._viewer_rate = viewer_rate
        self._known_next: tuple[int, Candidate] | None = None
        self._clips = 0
        self._seen_s: float | None = None

    def go_to_wanted_rung(self) -> None:
        """Only while no chunk is on the ladder: an epoch."""
        self.rung = self.wanted_rung
        self._known_next = None
        self.demand = self.rungs[self.rung]
        self.report.num_changes += 1

    # Input

    def _num_arrived(self, now_s: float) -> int:
        since_s = now_s - self.opened_s - self._collect_s
        return max(0, math.floor(since_s / self._unit_s + 1e-9) + 1)

    def _captured_s(self, unit: int) -> float:
        return self.opened_s + unit * self._unit_s

    def next_event_s(self, now_s: float) -> float:
        """When something can happen by itself: a clip arrives, or the viewer takes one."""
        if self.is_live:
            return self.opened_s + self._collect_s + self._num_arrived(now_s) * self._unit_s
        if self._clips >= OUTPUT_CLIPS and self._seen_s is not None:
            return max(self._seen_s, now_s + 1e-6)
        return math.inf

    def look(self, now_s: float) -> None:
        """Let time pass, before `view`: input overflows, clips are seen, still ones are held."""
        demand = self.demand
        if not self.is_live or self._viewer_rate < 1:
            while self._clips and self._seen_s is not None and self._seen_s <= now_s:
                self._clips -= 1
                self._seen_s += demand.period_s / self._viewer_rate
        if not self.is_live:
            return
        self._arrived = self._num_arrived(now_s)
        waiting = self._arrived - self._num_taken
        overflow = waiting - QUEUE_CLIPS * demand.units
        if overflow > 0:
            self._lose(overflow)
        if demand.skips_still and self.next_chunk and self._is_still is not None:
            self._hold(now_s, self._is_still)

    def _hold(self, now_s: float, is_still: Callable[[int], bool]) -> None:
        units = self.demand.units
        while self._arrived - self._num_taken >= units:
            if self._num_skipped >= MAX_SKIPS or not is_still(self._num_taken):
                return
            self._num_skipped += 1
            captured_s = self._captured_s(self._num_taken)
            self._num_taken += units
            self.report.num_held += 1
            if self.chunks:
                self.chunks[-1].held += 1
            else:
                self._hand_over(
                    now_s, captured_s, captured_s - self.opened_s, self._due_s(captured_s)
                )

    def _lose(self, num_units: int) -> None:
        self._num_taken += num_units
        self.report.num_dropped += num_units

    def drop(self, num_clips: int) -> None:
        self._lose(num_clips * self.demand.units)

    def _due_s(self, captured_s: float, pts_s: float = 0.0) -> float:
        return self.deadlines.due_s(captured_s=captured_s, pts_s=pts_s)

    # The ladder

    def view(self, now_s: float) -> SessionView:
        """What a policy is told; it falls asleep where nothing of it could run or be dropped."""
        demand = self.demand
        waiting_due_s: tuple[float, ...] = ()
        if self.is_live:
            waiting = (self._arrived - self._num_taken) // demand.units
            if waiting > 0:
                waiting_due_s = tuple(
                    self._due_s(self._captured_s(self._num_taken + index * demand.units))
                    for index in range(waiting)
                )
        candidates: list[Candidate] = []
        before: Chunk | None = None
        for chunk in self.chunks:
            if not chunk.is_busy and self._keeps_order(before, chunk.next_step):
                if chunk.candidate is None:
                    chunk.candidate = self._candidate(chunk)
                candidates.append(chunk.candidate)
            before = chunk
        if (
            self.rung == self.wanted_rung
            and len(self.chunks) < demand.in_flight
            and self._clips < OUTPUT_CLIPS
            and self._keeps_order(before, 0)
            and (waiting_due_s or not self.is_live)
        ):
            due_s = waiting_due_s[0] if waiting_due_s else self._due_s(now_s, self._next_pts_s)
            candidates.append(
                Candidate(
                    Pass(self.session, self.next_chunk, 0),
                    self.room_since_s,
                    demand.rows,
                    demand.frames,
                    demand.steps,
                    due_s,
                )
            )
        self.is_asleep = not (candidates or waiting_due_s or self.chunks)
        return SessionView(
            self.session,
            demand.steps,
            len(self.chunks),
            len(waiting_due_s),
            tuple(candidates),
            waiting_due_s,
            demand.clip_frames,
            self.service.weight,
            self._expected(len(waiting_due_s)) if self.is_live else None,
        )

    def _expected(self, num_waiting: int) -> Candidate:
        demand = self.demand
        unit = self._num_taken + num_waiting * demand.units
        captured_s = self._captured_s(unit)
        due_s, known = self._due_s(captured_s), self._known_next
        if known is None or (known[0], known[1].due_s) != (unit, due_s):
            where = Pass(self.session, self.next_chunk + num_waiting, 0)
            ready_s = captured_s + (demand.units - 1) * self._unit_s + self._collect_s
            candidate = Candidate(where, ready_s, demand.rows, demand.frames, demand.steps, due_s)
            self._known_next = known = unit, candidate
        return known[1]

    def _candidate(self, chunk: Chunk) -> Candidate:
        demand = self.demand
        return Candidate(
            Pass(self.session, chunk.chunk, chunk.next_step),
            chunk.ready_s,
            demand.rows,
            demand.frames,
            max(1, demand.steps - chunk.next_step),
            chunk.due_s,
        )

    def _keeps_order(self, before: Chunk | None, step: int) -> bool:
        return before is None or (self.demand.in_flight > 1 and before.next_step > step)

    def begin(self, now_s: float) -> None:
        """Start the next chunk."""
        demand = self.demand
        if self.is_live:
            captured_s = self._captured_s(self._num_taken)
            pts_s = captured_s - self.opened_s
            self._num_taken += demand.units
            self._num_skipped = 0
            due_s = self._due_s(captured_s)
        else:
            captured_s = pts_s = self._next_pts_s
            due_s = self._due_s(captured_s, pts_s)
            if self._clips and due_s < now_s:
                seen_s = now_s + self._clips * demand.period_s
                self.deadlines.wait_for_viewer(seen_s, pts_s=pts_s, num_waiting_frames=0)
                due_s = self._due_s(captured_s, pts_s)
            self._next_pts_s += demand.period_s
        self.chunks.append(Chunk(self.next_chunk, captured_s, pts_s, due_s, now_s))
        self.next_chunk += 1
        self.room_since_s = now_s

    def run(self, where: Pass) -> Chunk:
        """Mark a chunk's next pass as under way."""
        chunk = next(one for one in self.chunks if one.chunk == where.chunk)
        chunk.next_step += 1
        chunk.is_busy = True
        chunk.candidate = None
        return chunk

    def advance(self, chunk: Chunk, done_s: float) -> None:
        """A pass has come back; after the last one the chunk leaves the ladder."""
        chunk.is_busy = False
        chunk.ready_s = done_s
        if chunk.next_step == self.demand.steps + self.demand.context_passes:
            self.chunks.remove(chunk)
            self.room_since_s = done_s

    def deliver(self, chunk: Chunk, now_s: float) -> None:
        """The chunk's pictures are there."""
        self._hand_over(now_s, chunk.captured_s, chunk.pts_s, chunk.due_s)
        for index in range(chunk.held):
            captured_s = chunk.captured_s + (index + 1) * self.demand.period_s
            self._hand_over(now_s, captured_s, chunk.pts_s, self._due_s(captured_s))

    def _hand_over(self, now_s: float, captured_s: float, pts_s: float, due_s: float) -> None:
        stall_s = self.deadlines.deliver(now_s, pts_s=pts_s, due_s=due_s, has_spare=self._clips > 0)
        report = self.report
        if report.first_frame_s is None:
            report.first_frame_s = now_s - self.opened_s
        is_first = report.num_chunks == 0
        report.num_chunks += 1
        late_s = max(0.0, now_s - due_s) if self.is_live or is_first else stall_s
        if late_s > 1e-9:
            report.num_late += 1
        self.lateness_s.append(late_s)
        if self.is_live:
            self.ages_s.append(now_s - captured_s)
        if not self.is_live or self._viewer_rate < 1:
            if self._seen_s is None or (self._clips == 0 and self._seen_s < now_s):
                self._seen_s = now_s
            self._clips += 1
