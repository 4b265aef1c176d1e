"""The most sessions that any schedule at all could serve, by trying all of them: small cases only.

Time is a whole number. An engine's tick encodes the clips of the chunks that start, runs one
forward of any passes that may run, and decodes the chunks that are finished, soonest due first; or
it waits for the next clip. A set of sessions is feasible if some endless row of ticks misses no
deadline: the state of an engine (time within a hyperperiod, and how far each clip is) repeats, so
it is feasible exactly if a walk over states that miss nothing comes back to itself. Every choice is
tried, states from which none leads on are remembered, and those that cannot be in time even if all
work were in one piece are not looked into.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_STATES = 4_000  # of one case; more is an answer of None


@dataclass(frozen=True, slots=True)
class Sort:
    """Sessions of one sort: an input clip each `period`, complete `collect` after its capture."""

    period: int
    collect: int
    latency: int
    """From capture until a clip is due."""
    steps: int
    row: int
    """Time that a pass adds to a forward."""
    in_flight: int
    """Chunks of a session that may be on the ladder at once."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Time of a forward beside its rows, of encoding a clip and of decoding a chunk."""

    forward: int
    encode: int
    decode: int


@dataclass(frozen=True, slots=True)
class Session:
    sort: Sort
    phase: int
    """Capture of clip 0, in [0, period)."""

    def arrived(self, now: int) -> int:
        """Clips that are complete, clip 0 being the first captured from time 0 on."""
        return (now - self.phase - self.sort.collect) // self.sort.period + 1

    def due(self, clip: int) -> int:
        return self.phase + clip * self.sort.period + self.sort.latency

    def next_arrival(self, now: int) -> int:
        return self.phase + self.sort.collect + self.arrived(now) * self.sort.period


Ladder = tuple[int, tuple[tuple[int, int], ...]]
"""Clips that have begun, and (clip, next step) of those on the ladder, oldest first."""

Key = tuple[int, tuple[int, ...]]


def is_feasible(engine: Engine, sessions: Sequence[Session]) -> bool | None:
    """Whether some schedule misses nothing for ever; None if there are too many states to say."""
    search = _Search(engine, sorted(sessions, key=lambda one: (repr(one.sort), one.phase)))
    return search.run()


def load(engine: Engine, sessions: Sequence[Session]) -> tuple[int, int]:
    """Least time that a hyperperiod's work takes, and the hyperperiod."""
    hyperperiod = math.lcm(*(one.sort.period for one in sessions))
    total = forwards = 0
    for session in sessions:
        sort, clips = session.sort, hyperperiod // session.sort.period
        total += clips * (engine.encode + sort.steps * sort.row + engine.decode)
        forwards = max(forwards, clips * (sort.steps if sort.in_flight == 1 else 1))
    return total + forwards * engine.forward, hyperperiod


class _Search:
    def __init__(self, engine: Engine, sessions: Sequence[Session]) -> None:
        self._engine = engine
        self._sessions = sessions
        self._hyperperiod = math.lcm(*(one.sort.period for one in sessions))
        self._dead: dict[int, list[tuple[int, ...]]] = {}

    def run(self) -> bool | None:
        """A walk in depth: `path` are the states it came through, with the choices left there."""
        if load(self._engine, self._sessions)[0] > self._hyperperiod:
            return False
        start: tuple[Ladder, ...] = tuple((one.arrived(0), ()) for one in self._sessions)
        num_dead = 0
        path: list[tuple[Key, Iterator[tuple[int, tuple[Ladder, ...]]]]] = []
        on_path: set[Key] = set()

        def enter(now: int, state: tuple[Ladder, ...]) -> bool:
            key = self._key(now, state)
            if key in on_path:
                return True
            if not self._is_dead(key):
                on_path.add(key)
                path.append((key, self._choices(now, state)))
            return False

        enter(0, start)
        while path:
            key, choices = path[-1]
            choice = next(choices, None)
            if choice is None:
                path.pop()
                on_path.discard(key)
                self._bury(key)
                num_dead += 1
                if num_dead > MAX_STATES:
                    return None
            elif enter(*choice):
                return True
        return False

    def _is_dead(self, key: Key) -> bool:
        """Whether nothing led on from here, or from a state that was further everywhere."""
        time, progress = key
        return any(
            all(there >= here for there, here in zip(known, progress, strict=True))
            for known in self._dead.get(time, ())
        )

    def _bury(self, key: Key) -> None:
        time, progress = key
        known = self._dead.setdefault(time, [])
        known[:] = [
            one
            for one in known
            if not all(here >= there for there, here in zip(one, progress, strict=True))
        ]
        known.append(progress)

    def _key(self, now: int, state: Sequence[Ladder]) -> Key:
        """Time within the hyperperiod, and how many passes each clip near it has had."""
        progress: list[int] = []
        for session, (begun, chunks) in zip(self._sessions, state, strict=True):
            arrived = session.arrived(now)
            steps = dict(chunks)
            whole = session.sort.steps
            for clip in range(arrived - self._clips_back(session), arrived + 1):
                progress.append(steps.get(clip, whole if clip < begun else 0))
        return now % self._hyperperiod, tuple(progress)

    @staticmethod
    def _clips_back(session: Session) -> int:
        """How long ago a clip can have arrived that is not late yet."""
        sort = session.sort
        return (sort.latency - sort.collect) // sort.period + 2

    def _choices(
        self, now: int, state: tuple[Ladder, ...]
    ) -> Iterator[tuple[int, tuple[Ladder, ...]]]:
        """States after each choice that is not hopeless; the largest forwards first."""
        may_run = [
            (session.due(clip), place, clip)
            for place, session in enumerate(self._sessions)
            for clip in self._candidates(session, state[place], now)
        ]
        may_run.sort()
        tried: set[object] = set()
        for count in range(len(may_run), 0, -1):
            for chosen in itertools.combinations(may_run, count):
                after = self._tick(now, state, chosen)
                if after is None:
                    continue
                key = self._key(*after)
                if key not in tried:
                    tried.add(key)
                    yield after
        wait = min(session.next_arrival(now) for session in self._sessions)
        if self._has_hope(wait, state):
            yield wait, state

    def _candidates(self, session: Session, ladder: Ladder, now: int) -> list[int]:
        begun, chunks = ladder
        found: list[int] = []
        before: int | None = None
        for clip, step in chunks:
            if before is None or (session.sort.in_flight > 1 and before > step):
                found.append(clip)
            before = step
        has_room = len(chunks) < session.sort.in_flight
        may_follow = before is None or (session.sort.in_flight > 1 and before > 0)
        if has_room and may_follow and session.arrived(now) > begun:
            found.append(begun)
        return found

    def _tick(
        self, now: int, state: tuple[Ladder, ...], chosen: Sequence[tuple[int, int, int]]
    ) -> tuple[int, tuple[Ladder, ...]] | None:
        """Run one forward of (due, place, clip); None if something is late or hopeless then."""
        engine = self._engine
        ladders = [list(chunks) for _, chunks in state]
        begun = [count for count, _ in state]
        now += engine.forward
        finished: list[int] = []
        for due, place, clip in chosen:
            sort = self._sessions[place].sort
            now += sort.row
            if clip == begun[place]:
                begun[place] += 1
                now += engine.encode
                ladders[place].append((clip, 0))
            index = next(i for i, (one, _) in enumerate(ladders[place]) if one == clip)
            step = ladders[place][index][1] + 1
            if step == sort.steps:
                del ladders[place][index]
                finished.append(due)
            else:
                ladders[place][index] = (clip, step)
        for due in sorted(finished):
            now += engine.decode
            if now > due:
                return None
        after = tuple((count, tuple(chunks)) for count, chunks in zip(begun, ladders, strict=True))
        return (now, after) if self._has_hope(now, after) else None

    def _has_hope(self, now: int, state: Sequence[Ladder]) -> bool:
        """Whether all work that is due by any time fits before it, at least in one piece.

        Looks a hyperperiod ahead. A forward takes at most one pass of a chunk, and one first pass
        of a session, so there are as many as the session that needs the most.
        """
        engine = self._engine
        work: list[tuple[int, int, int, int]] = []
        for place, (session, (begun, chunks)) in enumerate(zip(self._sessions, state, strict=True)):
            sort = session.sort
            alone = sort.in_flight == 1
            passes = 0
            for clip, step in chunks:
                left = sort.steps - step
                passes = passes + left if alone else max(passes, left)
                work.append((session.due(clip), left * sort.row + engine.decode, place, passes))
            whole = engine.encode + sort.steps * sort.row + engine.decode
            clip, until = begun, now + self._hyperperiod
            while clip <= session.arrived(now) or session.due(clip) <= until:
                passes = passes + sort.steps if alone else max(passes + 1, sort.steps)
                work.append((session.due(clip), whole, place, passes))
                clip += 1
        work.sort()
        total = forwards = 0
        for due, seconds, _, passes in work:
            total += seconds
            forwards = max(forwards, passes)
            if now + total + forwards * engine.forward > due:
                return False
        return True
