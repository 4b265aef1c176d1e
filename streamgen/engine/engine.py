"""The loop: look at all sessions, ask the policy, submit, collect, decode. One thread, no waiting.

Knows no models, codecs or devices: those came in with the executor and with each session.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from streamgen.cache.rows import RowPool
from streamgen.clock import Clock
from streamgen.diffusion.noise import NoiseSource
from streamgen.engine.batch import (
    Batch,
    Completed,
    Control,
    LorasScaled,
    Payload,
    PromptDropped,
    Row,
    SlotKey,
    SlotsDropped,
    Started,
)
from streamgen.engine.collaborators import ChunkStarter, ClipDecoder, GradedStarter
from streamgen.engine.delivery import Delivery
from streamgen.engine.executor import Executor
from streamgen.engine.governing import Desk
from streamgen.engine.joint import JointSession
from streamgen.engine.meters import ServiceMeters
from streamgen.engine.prompt_book import PromptBook
from streamgen.engine.recipe import CacheMode, Recipe, rungs_of
from streamgen.engine.recovery import go_on_from_past
from streamgen.engine.rungs import begin_epoch
from streamgen.engine.session import Session
from streamgen.engine.terms import NO_TERMS, ServiceTerms
from streamgen.engine.timekeeping import Timekeeper
from streamgen.errors import CapacityError
from streamgen.metrics.export import Metrics
from streamgen.metrics.trace import Span, Trace
from streamgen.scheduling.capacity import Admission, Governor, Verdict
from streamgen.scheduling.latency import LatencyModel
from streamgen.scheduling.plan import Drop, Plan, SessionView, View, rows_of_a_batch
from streamgen.scheduling.policy import Policy
from streamgen.types import PromptId, SessionId

if TYPE_CHECKING:
    from torch import Tensor

IDLE_S = 0.001  # how long a tick sleeps that found nothing to do


class Engine:
    """Owns the sessions, and the leases of cache rows; drives one executor.

    Not thread-safe: one thread opens, closes and ticks. FrameQueues carry frames in and out.
    """

    def __init__(
        self,
        executor: Executor,
        policy: Policy,
        *,
        rows: RowPool,
        max_rows: int,
        clock: Clock,
        metrics: Metrics,
        trace: Trace | None = None,
        governor: Governor | None = None,
        latency: LatencyModel | None = None,
    ) -> None:
        """`max_rows` bounds a forward's rows; `trace` takes what ticks did; a `governor` admits
        sessions with an offer, and chooses their rungs; `latency` has learned something before."""
        self._executor = executor
        self._policy = policy
        self._row_pool = rows
        self._max_rows = max_rows
        self._clock = clock
        self._latency = latency or LatencyModel()
        self._sessions: dict[SessionId, Session] = {}
        self._book = PromptBook()
        self._controls: list[Control] = []
        self._rows_in_flight = 0
        self._session_ids = itertools.count()
        self._ticks = itertools.count()
        self._meters = ServiceMeters(metrics)
        self._trace = trace or Trace(clock, capacity=0)
        self._times = Timekeeper(self._latency, self._meters, metrics, self._trace)
        self._delivery = Delivery(clock, self._times, self._meters)
        self._desk = None if governor is None else Desk(governor, self._latency, self._meters)
        self._deciding_s = metrics.summary(
            "streamgen_scheduling_seconds", "Seconds of a tick that deciding took."
        )
        self._batch_rows = metrics.summary("streamgen_batch_rows", "Rows of a batch.")
        self._chunks = metrics.counter("streamgen_chunks_total", "Chunks that finished.")

    @property
    def executor(self) -> Executor:
        return self._executor

    @property
    def latency(self) -> LatencyModel:
        return self._latency

    @property
    def trace(self) -> Trace:
        """What the newest ticks did, for whoever writes it to a file."""
        return self._trace

    @property
    def meters(self) -> ServiceMeters:
        return self._meters

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All open sessions, oldest first."""
        return tuple(self._sessions.values())

    @property
    def num_free_rows(self) -> int:
        """Cache rows that nobody has leased."""
        return self._row_pool.num_free

    @property
    def max_rows(self) -> int:
        """Rows that a forward may have."""
        return self._max_rows

    def add_prompt(self, text_MD: Tensor) -> PromptId:
        """Hand in a prompt's features, [M, D]; the caller holds the prompt until `drop_prompt`."""
        return self._book.add(text_MD)

    def drop_prompt(self, prompt: PromptId) -> None:
        """Let go of a prompt; chunks in flight keep it until they are done."""
        self._book.release(prompt)

    def open(
        self,
        recipe: Recipe,
        *,
        make_starter: Callable[[], ChunkStarter],
        decoder: ClipDecoder,
        seed: int,
        prompt: PromptId,
        negative_prompt: PromptId,
        max_waiting_clips: int,
        terms: ServiceTerms = NO_TERMS,
    ) -> Session:
        """Begin a session; with an offer in its `terms` the governor says on which rung.

        Raises CapacityError if the cache rows that it needs are taken or a pass of it would never
        fit into a forward, ValueError if a prompt is gone, and what `make_starter` raises; whatever
        it raises, nothing is held afterwards.
        """
        if recipe.max_pass_rows > self._max_rows:
            raise CapacityError(
                f"a guided pass takes {recipe.max_pass_rows} rows, a forward has {self._max_rows}; "
                f"allow more rows in a forward or set guidance mode none or self"
            )
        rungs, rung = rungs_of(recipe, terms.ladder), 0
        if terms.offer is not None and self._desk is not None:
            rung = self._desk.admit(self._clock.now(), terms.offer, self._sessions.values()).rung
        elif rungs:
            rung = terms.rung
        if rungs:
            recipe = rungs[rung].recipe
        cache_rows = self._row_pool.lease(recipe.num_cache_rows)
        try:
            starter = make_starter()
            self._book.hold(prompt, negative_prompt)
        except BaseException:
            self._row_pool.release(cache_rows)
            raise
        make_session = JointSession if recipe.mode is CacheMode.JOINT else Session
        session = make_session(
            id=SessionId(next(self._session_ids)),
            recipe=recipe,
            starter=starter,
            decoder=decoder,
            seed=seed,
            prompt=prompt,
            negative_prompt=negative_prompt,
            cache_rows=cache_rows,
            max_waiting_clips=max_waiting_clips,
            depth=self._executor.stages,
            opened_s=self._clock.now(),
            terms=terms,
            rungs=rungs,
            rung=rung,
            wanted_rung=rung,
        )
        if rungs and isinstance(starter, GradedStarter):
            starter.set_quality(rungs[rung].quality)
        self._sessions[session.id] = session
        return session

    def predict(self, terms: ServiceTerms) -> Admission:
        """What `open` would answer now; without governor or offer, that all is well."""
        if self._desk is None or terms.offer is None:
            return Admission(Verdict.FULL, 0, 0, None)
        return self._desk.predict(self._clock.now(), terms.offer, self._sessions.values())

    def set_prompt(self, session: Session, prompt: PromptId) -> None:
        """From the next chunk on, follow another prompt; chunks in flight keep theirs."""
        self._book.hold(prompt)
        self._book.release(session.prompt)
        session.prompt = prompt

    def scale_loras(self, scales: Mapping[str, float]) -> None:
        """From the next tick on, merge LoRAs at these scales, for all sessions; others are off."""
        self._controls.append(LorasScaled(tuple(scales.items())))

    def close(self, session: Session) -> None:
        """End a session at once; its cache rows are free for the next."""
        del self._sessions[session.id]
        self._row_pool.release(session.cache_rows)
        if self._desk is not None:
            self._desk.left(self._clock.now(), session)
        self._controls.append(SlotsDropped(session.id))
        for prompt in (
            session.prompt,
            session.negative_prompt,
            *(c.prompt for c in session.chunks),
        ):
            self._book.release(prompt)

    def recover(self, noise: NoiseSource) -> None:
        """The executor has lost its memory: every session goes on from what it has decoded.

        Past latents go into the cache once more, chunks that were under way begin anew.
        """
        self._rows_in_flight = 0
        self._controls = [c for c in self._controls if isinstance(c, PromptDropped | LorasScaled)]
        for session in self._sessions.values():
            for chunk in session.chunks:
                self._book.release(chunk.prompt)
            go_on_from_past(session, noise)
            if session.watcher is not None:
                session.watcher.recovered()

    def run_out_of_memory(self, noise: NoiseSource) -> bool:
        """The device had no memory for what `tick` wanted of it: go on with less, from the past.

        All sessions go a rung down; False if there is no governor or no rung left."""
        desk, now_s = self._desk, self._clock.now()
        if desk is None or not desk.run_out_of_memory(now_s, self._sessions.values()):
            return False
        self.recover(noise)
        self._controls.extend(SlotsDropped(session) for session in self._sessions)
        return True

    def tick(self) -> bool:
        """One turn of the loop; False if there was nothing to do and it slept for a moment."""
        if self._executor.in_flight == self._executor.stages:
            self._retire(self._executor.collect())
        self._take_what_is_through()
        began_s = self._clock.now()
        if self._desk is not None:
            self._desk.review(began_s, self._sessions.values())
        self._begin_epochs()
        self._look_at_inputs()
        plan = self._policy.plan(self._view(), self._latency)
        self._drop(plan.drops)
        decided_s = self._clock.now()
        self._deciding_s.add(decided_s - began_s)
        self._trace.add(Span("decide", "engine", began_s, decided_s, {"rows": len(plan.passes)}))
        if plan.passes:
            self._executor.submit(*self._batch(plan))
        elif self._executor.in_flight:
            self._retire(self._executor.collect())
        elif self._controls or self._book.has_dropped:
            self._executor.submit(*self._batch(plan))  # no rows: what is closed leaves the executor
        elif self._delivery.hand_over_next(self._sessions.values()):
            pass  # nothing else could have been done while the device was at it
        else:
            self._clock.sleep(IDLE_S)
            return False
        return True

    def _take_what_is_through(self) -> None:
        """Clips and times of what a device was asked for in earlier ticks; nobody waits."""
        for session in self._sessions.values():
            if session.arriving:
                self._delivery.hand_over(session)
        self._times.look(self._clock.now())

    def _view(self) -> View:
        sessions = tuple(self._look_at(session) for session in self._sessions.values())
        max_rows = rows_of_a_batch(sessions, self._rows_in_flight, self._executor.stages)
        return View(self._clock.now(), min(self._max_rows, max_rows), sessions)

    def _look_at(self, session: Session) -> SessionView:
        with session.alone():
            return session.view()
        return session.view()  # of a session that has just failed

    def _drop(self, drops: tuple[Drop, ...]) -> None:
        for drop in drops:
            session = self._sessions[drop.session]
            with session.alone():
                session.starter.drop(drop.num_clips)
                self._delivery.count_lost(session)

    def _begin_epochs(self) -> None:
        for session in self._sessions.values():
            if session.is_at_epoch:
                self._controls.extend(begin_epoch(session, self._row_pool, self._meters))

    def _look_at_inputs(self) -> None:
        """Count what came too fast, hold what is still."""
        for session in self._sessions.values():
            if session.live is not None and session.failure is None:
                with session.alone():
                    self._delivery.look_at_input(session)

    def _batch(self, plan: Plan) -> tuple[Batch, Payload]:
        started: dict[SlotKey, Started] = {}
        for where in plan.passes:
            session = self._sessions[where.session]
            chunk = session.starts(where) if session.failure is None else None
            if chunk is not None:
                with session.alone():
                    started[SlotKey(where.session, chunk)] = self._start(session, chunk)
        self._tell_watchers(plan)
        planned = ((self._sessions[where.session], where) for where in plan.passes)
        rows = tuple(
            row
            for session, where in planned
            if session.failure is None
            for row in session.rows(where)
        )
        added, dropped = self._book.take_changes()
        self._controls.extend(PromptDropped(prompt) for prompt in dropped)
        controls, self._controls = tuple(self._controls), []
        self._rows_in_flight += len(rows)
        return Batch(next(self._ticks), rows, controls), Payload(started, added)

    def _tell_watchers(self, plan: Plan) -> None:
        is_alone = len({where.session for where in plan.passes}) == 1
        for session in self._sessions.values():
            passes = tuple(where for where in plan.passes if where.session == session.id)
            if passes and session.watcher is not None and session.failure is None:
                session.watcher.ran(passes, is_alone=is_alone)

    def _start(self, session: Session, chunk: int) -> Started:
        began_s = self._clock.now()
        started = session.starter.start(chunk)
        now_s = self._clock.now()
        if session.live is not None and not started.is_past:
            self._times.encoded(session.id, started, began_s=began_s, now_s=now_s)
        session.begin(started, now_s)
        self._book.hold(session.prompt)
        return started

    def _retire(self, completed: Completed) -> None:
        """Decode what finished, let the rest go on."""
        num_rows = len(completed.batch.rows)
        self._rows_in_flight -= num_rows
        self._times.denoised(completed.timings, self._clock.now())
        if num_rows == 0:
            return
        self._batch_rows.add(num_rows)
        now_s = self._clock.now()
        for row in completed.batch.rows:
            session = self._sessions.get(row.where.session)
            if session is None or session.failure is not None:
                continue
            if row.is_negative or row.recalls:
                continue
            for part in row.parts:
                self._advance(session, part, completed, now_s)
            self._controls.extend(session.copies_after(row))

    def _advance(self, session: Session, row: Row, completed: Completed, now_s: float) -> None:
        """Let a chunk go on after a pass, decode it after its last step."""
        chunk = session.chunk(row.where.chunk)
        if row.key in completed.finished and not chunk.started.is_past:
            with session.alone():
                self._delivery.decode(session, chunk, completed.finished[row.key])
                self._chunks.add()
            chunk.is_decoded = True
            if chunk.chunk == 0 and session.recipe.first_chunk_is_shared:
                self._controls.extend(session.shared_first_chunk())
        session.advance(row.where, now_s)
        if chunk not in session.chunks:
            self._book.release(chunk.prompt)
