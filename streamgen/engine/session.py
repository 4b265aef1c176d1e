"""One stream: its chunks on the ladder, its windows, its finished clips. Host state only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from streamgen.cache.placement import CacheWindow, Prelude
from streamgen.engine.batch import Level, Row, SlotKey, Started
from streamgen.engine.past import PastLatents
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.scheduling.plan import Candidate, Pass, SessionView
from streamgen.types import Clip, PromptId, SessionId

if TYPE_CHECKING:
    from torch import Tensor


class ChunkStarter(Protocol):
    """How a chunk begins: the whole difference between text-to-video and video-to-video."""

    @property
    def waiting_clips(self) -> int:
        """Clips at the input that could become chunks; 0 for text-to-video."""
        ...

    def ready(self) -> bool:
        """Whether `start` can make a chunk now, without waiting."""
        ...

    def has_ended(self) -> bool:
        """Whether no chunk will ever follow."""
        ...

    def start(self, chunk: int) -> Started:
        """Make the next chunk; chunks are asked for in order. Only after `ready` said True."""
        ...

    def drop(self, num_clips: int) -> None:
        """Forget the oldest clips at the input."""
        ...


class PendingClip(Protocol):
    """A decoded clip that may still be on its way to the host."""

    def wait(self) -> Clip: ...


class ClipDecoder(Protocol):
    """Turns clean latents into pictures; holds the codec's streaming state of one session."""

    def decode(
        self,
        latents_FCHW: Tensor | None,
        *,
        num_frames: int,
        pts_s: float,
        captured_s: float,
    ) -> PendingClip:
        """Pictures of a finished chunk, the first `num_frames` of them."""
        ...


@dataclass(slots=True)
class ChunkOnLadder:
    """A chunk in flight, as the host knows it."""

    chunk: int
    prompt: PromptId
    start_level: Level
    pts_s: float
    captured_s: float
    num_frames: int
    """Pixel frames to show of it; fewer than it decodes to where an input ended in its midst."""
    ready_s: float
    is_switch: bool
    """Whether it follows another prompt than the chunk before it."""
    next_step: int = 0
    is_busy: bool = False


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
    opened_s: float
    windows: list[CacheWindow] = field(init=False)
    chunks: list[ChunkOnLadder] = field(init=False, default_factory=list[ChunkOnLadder])
    clips: deque[PendingClip] = field(init=False, default_factory=deque[PendingClip])
    past: PastLatents = field(init=False)
    next_chunk: int = field(init=False, default=0)
    newest_pts_s: float = field(init=False, default=0.0)
    """Where in the stream the newest chunk on the ladder begins."""
    last_prompt: PromptId | None = field(init=False, default=None)
    """What the newest chunk follows."""
    failure: Exception | None = field(init=False, default=None)
    """What its own input or codec raised: nothing more of it runs, and its owner closes it."""
    room_since_s: float = field(init=False)
    """When the last chunk started or left: since then the next one could have started."""

    def __post_init__(self) -> None:
        self.windows = [self.recipe.new_window() for _ in self.cache_rows]
        self.past = PastLatents(sinks=self.recipe.sinks, ring=self.recipe.ring)
        self.room_since_s = self.opened_s

    @property
    def has_ended(self) -> bool:
        """Whether every chunk that will ever be has been decoded."""
        return not self.chunks and self.starter.has_ended()

    def view(self) -> SessionView:
        if self.failure is not None:
            return SessionView(self.id, self.recipe.num_steps, len(self.chunks), 0, ())
        candidates = [
            Candidate(
                where=Pass(self.id, chunk.chunk, chunk.next_step),
                ready_s=chunk.ready_s,
                num_rows=self._num_rows(chunk.next_step),
            )
            for before, chunk in zip([None, *self.chunks], self.chunks, strict=False)
            if not chunk.is_busy and self._keeps_order(before, chunk.next_step)
        ]
        if self._may_start():
            where = Pass(self.id, self.next_chunk, 0)
            candidates.append(Candidate(where, self.room_since_s, self._num_rows(0)))
        return SessionView(
            session=self.id,
            num_steps=self.recipe.num_steps,
            chunks_in_flight=len(self.chunks),
            waiting_clips=self.starter.waiting_clips,
            candidates=tuple(candidates),
        )

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
                ready_s=now_s,
                is_switch=self.last_prompt not in (None, self.prompt),
            )
        )
        self.last_prompt = self.prompt
        self.next_chunk += 1
        self.newest_pts_s = started.pts_s
        self.room_since_s = now_s

    def rows(self, where: Pass) -> tuple[Row, ...]:
        """Bind the chunk's next pass to level, cache rows and cells, and mark it as under way.

        Preludes come first; they ride in the same batch, in a forward of their own before it.
        """
        chunk = self.chunk(where.chunk)
        assert chunk.next_step == where.step, f"{where} is not the chunk's next step"
        assert not chunk.is_busy, f"{where} cannot run while the chunk is under way"
        recipe = self.recipe
        is_context = where.step == recipe.num_steps
        sides = (False, True) if recipe.has_negative(where.step) else (False,)
        preludes = self._preludes(chunk, where) if where.step == 0 and recipe.has_preludes else []
        rows = tuple(self._row(chunk, where, is_context, is_negative) for is_negative in sides)
        chunk.next_step += 1
        chunk.is_busy = True
        return (*preludes, *rows)

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

    def key(self, chunk: ChunkOnLadder) -> SlotKey:
        return SlotKey(self.id, chunk.chunk)

    def _num_rows(self, step: int) -> int:
        return 1 + self.recipe.has_negative(step)

    def _keeps_order(self, before: ChunkOnLadder | None, step: int) -> bool:
        """Whether every cache row that this step touches has seen the chunk before."""
        if before is None:
            return True
        if self.recipe.mode is not CacheMode.PER_STEP or (
            self.recipe.first_chunk_is_alone and before.chunk == 0
        ):
            return before.next_step == self.recipe.num_passes and not before.is_busy
        return before.next_step > step

    def _may_start(self) -> bool:
        before = self.chunks[-1] if self.chunks else None
        return (
            len(self.chunks) < self.recipe.max_in_flight
            and len(self.clips) < self.max_waiting_clips
            and self._keeps_order(before, 0)
            and self.starter.ready()
        )

    def _preludes(self, chunk: ChunkOnLadder, where: Pass) -> list[Row]:
        """Context passes over finished frames that the chunk needs before its first step."""
        recipe = self.recipe
        frames = recipe.first_frame(chunk.chunk), recipe.num_frames(chunk.chunk)
        sides = (False, True) if recipe.has_negative(recipe.num_steps) else (False,)
        rows: list[Row] = []
        for is_negative in sides:
            window = self.windows[recipe.cache_row(where.step, is_negative)]
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
        )

    def _row(self, chunk: ChunkOnLadder, where: Pass, is_context: bool, is_negative: bool) -> Row:
        recipe, ladder = self.recipe, self.recipe.ladder
        if is_context:
            level = recipe.context_level
        elif where.step == 0:
            level = chunk.start_level
        else:
            level = Level(ladder.timesteps[where.step], ladder.sigmas[where.step])
        index = recipe.cache_row(where.step, is_negative)
        window, first_frame = self.windows[index], recipe.first_frame(chunk.chunk)
        placement = window.place(
            first_frame, recipe.num_frames(chunk.chunk), is_switch=chunk.is_switch
        )
        is_final = where.step == recipe.num_passes - 1
        return Row(
            where=where,
            level=level,
            next_sigma=None if is_context else ladder.next_sigma(where.step),
            cache_row=self.cache_rows[index],
            placement=placement,
            prompt=self.negative_prompt if is_negative else chunk.prompt,
            seed=self.seed,
            guidance=recipe.guidance,
            is_context=is_context,
            is_negative=is_negative,
            is_final=is_final,
            first_frame=first_frame,
            remembers=window.recalled() if is_final and not is_negative else (),
        )
