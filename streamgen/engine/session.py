"""One stream: its chunks on the ladder, its windows, its finished clips. Host state only."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from streamgen.cache.placement import CacheWindow, Placement, Prelude
from streamgen.cache.reanchored import ReanchoredWindow
from streamgen.engine.batch import CellsCopied, Level, Row, SlotKey, Started
from streamgen.engine.cascade import oldest_shared, shared_rows, step_before
from streamgen.engine.chunk import ChunkOnLadder
from streamgen.engine.clips import Arrival
from streamgen.engine.collaborators import (
    ChunkStarter,
    ClipDecoder,
    LiveStarter,
    PendingClip,
    SessionWatcher,
)
from streamgen.engine.expected import expected_clip
from streamgen.engine.past import PastLatents
from streamgen.engine.recipe import Recipe, Rung
from streamgen.engine.terms import NO_TERMS, ServiceTerms
from streamgen.errors import StreamGenError
from streamgen.ops.backend import is_out_of_memory
from streamgen.scheduling.deadlines import Deadlines, SessionReport
from streamgen.scheduling.plan import Candidate, Pass, SessionView
from streamgen.scheduling.service import Quality
from streamgen.types import PromptId, SessionId

logger = logging.getLogger(__name__)

UNDER_WAY = 2  # clips that a busy device decodes beside those that wait: the newest two ticks'


@dataclass(slots=True)
class Session:
    """All host state of one stream; dies with it, so nothing can leak into the next."""

    id: SessionId
    recipe: Recipe
    starter: ChunkStarter
    decoder: ClipDecoder
    seed: int
    prompt: PromptId
    negative_prompt: PromptId
    cache_rows: tuple[int, ...]
    max_waiting_clips: int
    """Finished clips that may wait before no new chunk starts."""
    depth: int  # batches that the executor has in flight at once
    opened_s: float
    terms: ServiceTerms = NO_TERMS
    rungs: tuple[Rung, ...] = ()
    rung: int = 0
    wanted_rung: int = 0
    """Where it goes as soon as no chunk of it is on the way: an epoch."""
    windows: list[CacheWindow] = field(init=False)
    chunks: list[ChunkOnLadder] = field(init=False, default_factory=list[ChunkOnLadder])
    arriving: deque[Arrival] = field(init=False, default_factory=deque[Arrival])
    """Clips that a device is still decoding, oldest first; on a CPU there is none."""
    clips: deque[PendingClip] = field(init=False, default_factory=deque[PendingClip])
    """Finished clips for its owner, who takes them."""
    past: PastLatents = field(init=False)
    next_chunk: int = field(init=False, default=0)
    newest_pts_s: float = field(init=False, default=0.0)
    """Where in the stream the newest chunk on the ladder begins."""
    newest_captured_s: float | None = field(init=False, default=None)
    last_prompt: PromptId | None = field(init=False, default=None)
    """What the newest chunk follows."""
    clip_frames: int = field(init=False, default=0)
    """Pictures of its longest clip so far."""
    failure: Exception | None = field(init=False, default=None)
    """What its own input or codec raised: nothing more of it runs, and its owner closes it."""
    room_since_s: float = field(init=False)
    """When the last chunk started or left: since then the next one could have started."""

    report: SessionReport = field(init=False, default_factory=SessionReport)
    deadlines: Deadlines = field(init=False)
    next_pts_s: float = field(init=False, default=0.0)
    """Where the next chunk of a text-to-video session begins in its stream."""
    last_clip: PendingClip | None = field(init=False, default=None)
    watcher: SessionWatcher | None = field(init=False, default=None)
    """Who is told what becomes of it: a recording."""
    live: LiveStarter | None = field(init=False)
    """The starter, where its clips come at times of their own."""

    def __post_init__(self) -> None:
        self.live = self.starter if isinstance(self.starter, LiveStarter) else None
        self.deadlines = Deadlines(
            self.terms.service, opened_s=self.opened_s, frame_s=self.terms.frame_s
        )
        self.windows = self.recipe.new_windows()
        self.past = PastLatents(sinks=self.recipe.sinks, ring=self.recipe.ring)
        self.room_since_s = self.opened_s

    @property
    def has_ended(self) -> bool:
        """Whether every chunk that will ever be has been decoded."""
        return not self.chunks and not self.arriving and self.starter.has_ended()

    @property
    def is_at_epoch(self) -> bool:
        """Whether it has drained and another rung is wanted of it."""
        return self.rung != self.wanted_rung and not self.chunks and self.failure is None

    @contextmanager
    def alone(self) -> Generator[None]:
        """Let what its own input or codec raises in here end this session and no other one."""
        try:
            yield
        except Exception as error:  # its owner gets it, whatever it is
            if is_out_of_memory(error):
                raise  # that is everybody's
            if not isinstance(error, StreamGenError):
                logger.exception("session %d failed", self.id)
            self.failure = error

    def view(self) -> SessionView:
        if self.failure is not None:
            return SessionView(self.id, self.recipe.num_steps, len(self.chunks), 0, ())
        captured_s = self._waiting_captured_s()
        waiting_due_s = tuple(self.deadlines.due_s(captured_s=s, pts_s=0.0) for s in captured_s)
        return SessionView(
            session=self.id,
            num_steps=self.recipe.num_steps,
            chunks_in_flight=len(self.chunks),
            waiting_clips=self.starter.waiting_clips,
            candidates=tuple(self._candidates(waiting_due_s)),
            waiting_due_s=waiting_due_s,
            clip_frames=self.clip_frames,
            expected=self._expected(captured_s),
        )

    def _expected(self, waiting_s: tuple[float, ...]) -> Candidate | None:
        offer = self.terms.offer
        if offer is None or self.live is None or self.starter.has_ended():
            return None
        newest_s = waiting_s[-1] if waiting_s else self.newest_captured_s
        where = Pass(self.id, self.next_chunk + len(waiting_s), 0)
        demand = offer.rungs[self.rung]
        return expected_clip(where, newest_s, demand, self.recipe, self.deadlines)

    @property
    def quality(self) -> Quality:
        """What it gets now."""
        return self.rungs[self.rung].quality if self.rungs else Quality(self.recipe.num_steps)

    def starts(self, where: Pass) -> int | None:
        """The chunk that begins with a planned pass."""
        return self.next_chunk if where.chunk == self.next_chunk else None

    def begin(self, started: Started, now_s: float) -> None:
        """Put the next chunk on the ladder."""
        ladder = self.recipe.ladder
        first = Level(ladder.timesteps[0], ladder.sigmas[0])
        self.chunks.append(
            ChunkOnLadder(
                chunk=self.next_chunk,
                prompt=self.prompt,
                start_level=started.level or first,
                pts_s=started.pts_s,
                captured_s=now_s if started.captured_s is None else started.captured_s,
                num_frames=started.num_frames,
                repeat=started.repeat,
                ready_s=now_s,
                is_switch=self.last_prompt not in (None, self.prompt),
                due_s=self._due_s(now_s, started),
                begins_scene=started.begins_scene and self.recipe.can_reanchor,
                started=started,
            )
        )
        self.last_prompt = self.prompt
        self.clip_frames = max(self.clip_frames, started.num_frames)
        self.next_pts_s = started.pts_s + started.num_frames * started.repeat * self.terms.frame_s
        self.next_chunk += 1
        self.newest_pts_s = started.pts_s
        self.newest_captured_s = started.captured_s
        self.room_since_s = now_s

    def rows(self, where: Pass) -> tuple[Row, ...]:
        """Bind the chunk's next pass to level, cache rows and cells, and mark it as under way.

        Preludes come first; they ride in the same batch, in a forward of their own before it.
        """
        chunk = self.chunk(where.chunk)
        assert chunk.next_step == where.step, f"{where} is not the chunk's next step"
        assert not chunk.is_busy, f"{where} cannot run while the chunk is under way"
        recipe = self.recipe
        sides = (False, True) if recipe.has_negative(where.step) else (False,)
        preludes = self._preludes(chunk, where) if where.step == 0 and recipe.has_preludes else []
        frames = recipe.first_frame(chunk.chunk), recipe.num_frames(chunk.chunk)
        rows: list[Row] = []
        for is_negative in sides:
            window = self._window(recipe.cache_row(where.step, is_negative), chunk)
            placement = window.place(*frames, is_switch=chunk.is_switch)
            row = self._row(chunk, where, placement, is_negative=is_negative)
            remembers = window.recalled() if row.is_final and not is_negative else ()
            shared = window.cells_from(oldest_shared(recipe, where))
            rows.append(replace(row, remembers=remembers, shared_cells=shared))
        chunk.next_step = recipe.step_after(chunk.chunk, where.step)
        chunk.is_busy = True
        return (*preludes, *rows)

    def copies_after(self, row: Row) -> tuple[CellsCopied, ...]:
        """What must be copied once a row has come back."""
        return ()

    def advance(self, where: Pass, now_s: float) -> None:
        """A pass has come back: the chunk may go on, or leaves the ladder after its last pass."""
        chunk = self.chunk(where.chunk)
        chunk.is_busy = False
        chunk.ready_s = now_s
        if chunk.next_step == self.recipe.num_passes:
            self.chunks.remove(chunk)
            self.room_since_s = now_s

    def chunk(self, number: int) -> ChunkOnLadder:
        return next(chunk for chunk in self.chunks if chunk.chunk == number)

    def shared_first_chunk(self) -> Iterator[CellsCopied]:
        """What its last step wrote, for the rows of the steps before, on each side."""
        cells = tuple(range(self.recipe.first_chunk_frames))
        for side in self.recipe.step_rows():
            rows = [self.cache_rows[index] for index in side]
            if len(rows) > 1:
                yield CellsCopied(rows[-1], tuple(rows[:-1]), cells)

    def key(self, chunk: ChunkOnLadder) -> SlotKey:
        return SlotKey(self.id, chunk.chunk)

    def _candidates(self, waiting_due_s: tuple[float, ...]) -> Iterator[Candidate]:
        for before, chunk in zip([None, *self.chunks], self.chunks, strict=False):
            if not chunk.is_busy and self._keeps_order(before, chunk.next_step):
                yield self._candidate(chunk)
        if self._may_start() and self._keeps_order(self.chunks[-1] if self.chunks else None, 0):
            yield self._next_start(waiting_due_s)

    def _candidate(self, chunk: ChunkOnLadder) -> Candidate:
        return Candidate(
            where=Pass(self.id, chunk.chunk, chunk.next_step),
            ready_s=chunk.ready_s,
            num_rows=self._num_rows(chunk.next_step),
            num_frames=self.recipe.num_frames(chunk.chunk),
            passes_left=max(1, self._steps_from(chunk.chunk, chunk.next_step)),
            due_s=chunk.due_s,
        )

    def _steps_from(self, chunk: int, step: int) -> int:
        return sum(one >= step for one in self.recipe.steps(chunk))

    def _num_rows(self, step: int) -> int:
        return 1 + self.recipe.has_negative(step)

    def _keeps_order(self, before: ChunkOnLadder | None, step: int) -> bool:
        """Whether every cache row that this step touches has seen the chunk before."""
        if before is None:
            return True
        if self.recipe.first_chunk_is_shared and before.chunk == 0:
            return before.next_step == self.recipe.num_passes and not before.is_busy
        return before.next_step > step_before(self.recipe, step)

    def _waiting_captured_s(self) -> tuple[float, ...]:
        service = self.terms.service
        if service is None or service.latency_s is None or self.live is None:
            return ()
        return self.live.waiting_captured_s()

    def _next_start(self, waiting_due_s: tuple[float, ...]) -> Candidate:
        if waiting_due_s:
            due_s = waiting_due_s[0]
        else:
            due_s = self.deadlines.due_s(captured_s=self.room_since_s, pts_s=self.next_pts_s)
        return Candidate(
            Pass(self.id, self.next_chunk, 0),
            self.room_since_s,
            self._num_rows(0),
            num_frames=self.recipe.num_frames(self.next_chunk),
            passes_left=self._steps_from(self.next_chunk, 0),
            due_s=due_s,
        )

    def _due_s(self, now_s: float, started: Started) -> float:
        due_s = self.deadlines.due_s(captured_s=started.captured_s, pts_s=started.pts_s)
        if self.clips and due_s < now_s:
            self.deadlines.wait_for_viewer(
                now_s,
                pts_s=started.pts_s,
                num_waiting_frames=len(self.clips) * started.num_frames * started.repeat,
            )
            due_s = self.deadlines.due_s(captured_s=started.captured_s, pts_s=started.pts_s)
        return due_s

    def _may_start(self) -> bool:
        return (
            self.rung == self.wanted_rung
            and len(self.chunks) < self.recipe.max_chunks(self.depth)
            and len(self.clips) < self.max_waiting_clips
            and len(self.clips) + len(self.arriving) < self.max_waiting_clips + UNDER_WAY
            and self.starter.ready()
        )

    def _window(self, index: int, chunk: ChunkOnLadder) -> CacheWindow:
        """The window of a cache row for the next pass of a chunk: a new one for a new scene."""
        first_frame = self.recipe.first_frame(chunk.chunk)
        if chunk.begins_scene and self.windows[index].begins_at != first_frame:
            self.windows[index] = ReanchoredWindow(self.recipe.new_window(), first_frame)
        return self.windows[index]

    def _preludes(self, chunk: ChunkOnLadder, where: Pass) -> list[Row]:
        """Context passes over finished frames that the chunk needs before its first step."""
        recipe = self.recipe
        frames = recipe.first_frame(chunk.chunk), recipe.num_frames(chunk.chunk)
        sides = (False, True) if recipe.has_negative(recipe.num_steps) else (False,)
        rows: list[Row] = []
        for is_negative in sides:
            window = self._window(recipe.cache_row(where.step, is_negative), chunk)
            prelude = window.prelude(*frames, is_switch=chunk.is_switch)
            if prelude is not None:
                rows.append(self._prelude_row(chunk, where, prelude, is_negative))
        return rows

    def _prelude_row(
        self, chunk: ChunkOnLadder, where: Pass, prelude: Prelude, is_negative: bool
    ) -> Row:
        recipe = self.recipe
        return Row(
            where=where,
            level=recipe.context_level,
            next_sigma=None,
            cache_row=self.cache_rows[recipe.cache_row(where.step, is_negative)],
            placement=prelude.placement,
            prompt=self.negative_prompt if is_negative else chunk.prompt,
            seed=self.seed,
            guidance=recipe.guidance,
            is_context=True,
            is_negative=is_negative,
            is_final=False,
            recalls=prelude.frames,
            shared_rows=(self.cache_rows[recipe.cache_row(where.step, is_negative)],),
            shared_cells=prelude.placement.write_cells,
        )

    def _row(
        self, chunk: ChunkOnLadder, where: Pass, placement: Placement, *, is_negative: bool = False
    ) -> Row:
        recipe, ladder = self.recipe, self.recipe.ladder
        is_context = where.step == recipe.num_steps
        if is_context:
            level = recipe.context_level
        elif where.step == 0:
            level = chunk.start_level
        else:
            level = Level(ladder.timesteps[where.step], ladder.sigmas[where.step])
        return Row(
            where=where,
            level=level,
            next_sigma=None if is_context else recipe.next_sigma(where.chunk, where.step),
            cache_row=self.cache_rows[recipe.cache_row(where.step, is_negative)],
            placement=placement,
            prompt=self.negative_prompt if is_negative else chunk.prompt,
            seed=self.seed,
            guidance=recipe.guidance,
            is_context=is_context,
            is_negative=is_negative,
            is_final=recipe.step_after(where.chunk, where.step) == recipe.num_passes,
            effort=recipe.savings.effort(where.step, recipe.num_steps),
            first_frame=recipe.first_frame(chunk.chunk),
            shared_rows=tuple(
                self.cache_rows[row] for row in shared_rows(recipe, where.step, is_negative)
            ),
            shared_cells=placement.write_cells,
        )
