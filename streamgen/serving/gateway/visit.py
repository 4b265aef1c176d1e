"""One visitor from the first message to the last: a place, a stream, pictures in and out.

All of it runs in an event loop, and nothing of it computes there: pictures are decoded and encoded
in threads, models run in the thread of LiveHost. Whatever way the visit ends - a message, a closed
tab, an error - the stream is closed and the place is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from streamgen.clock import Clock
from streamgen.errors import ConfigError, StreamGenError
from streamgen.media.input_rate import InputRate
from streamgen.media.pacing import Pacer
from streamgen.media.pixels import Framing
from streamgen.metrics.stats import Summary
from streamgen.serving.gateway import messages
from streamgen.serving.gateway.messages import Command, Report
from streamgen.serving.gateway.places import Places
from streamgen.serving.gateway.sessions import HeldSnapshots, RunningSession, Sessions
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import Granted, PresetFacts, Wishes
from streamgen.serving.live_stream import LiveStream
from streamgen.serving.snapshot import Snapshot
from streamgen.types import Frame, Pixels

logger = logging.getLogger(__name__)

FIGURES_EVERY_S = 1.0
HIGHEST_INPUT_FPS = 30.0  # what cameras of phones and laptops give
HIGHEST_OUTPUT_FPS = 60.0  # what screens show
MS = 1000.0  # in a second
OUTPUT_CLIPS = 3  # clips that pacing may hold back

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A picture from the visitor: its own time of capture, and how to get at the pixels.

    `load` computes, so it is called in a thread; it raises ConfigError for what is no picture.
    """

    stamp_ms: float
    load: Callable[[], Pixels]


class Peer(Protocol):
    """The visitor's end of a connection."""

    async def receive(self) -> Command | Arrival | None:
        """The next thing that came; None when the visitor has gone. ConfigError for nonsense."""
        ...

    async def send(self, report: Report) -> None:
        """Say something; a visitor who has gone does not hear it."""
        ...

    async def show(self, frame: Frame) -> bool:
        """Send a picture, whose `pts_s` is the visitor's time of capture in seconds; False if it
        was left out because those before have not arrived."""
        ...


class Visit:
    """Owns at most one live stream at a time."""

    def __init__(
        self,
        peer: Peer,
        host: LiveHost,
        places: Places,
        *,
        presets: Mapping[str, PresetFacts],
        clock: Clock,
        sessions: Sessions,
        snapshots: HeldSnapshots,
    ) -> None:
        self._peer = peer
        self._host = host
        self._places = places
        self._presets = presets
        self._clock = clock
        self._sessions = sessions
        self._snapshots = snapshots
        self._running: RunningSession | None = None
        self._stream: LiveStream | None = None
        self._play: asyncio.Task[None] | None = None
        self._rate = InputRate(highest_fps=HIGHEST_INPUT_FPS)

    async def run(self) -> None:
        """Talk until the visitor goes."""
        offers = [preset_offer(facts) for facts in self._presets.values()]
        await self._peer.send(messages.Offer(presets=offers, places=self._places.num_places))
        try:
            while True:
                try:
                    came = await self._peer.receive()
                    if came is None:
                        return
                    await self._follow(came)
                except StreamGenError as error:
                    await self._tell(error, fatal=False)
        finally:
            await self._end_play()

    async def _follow(self, came: Command | Arrival) -> None:
        if isinstance(came, Arrival):
            await self._take(came)
        elif isinstance(came, messages.Start):
            await self._end_play()
            wishes = self._wishes(came)
            snapshot = None if came.snapshot is None else self._snapshots.take(came.snapshot)
            self._play = asyncio.create_task(self._run_stream(wishes, snapshot, may_wait=came.wait))
        elif isinstance(came, messages.Stop):
            await self._end_play()
            await self._peer.send(messages.Ended())
        elif self._stream is not None:
            await self._turn(self._stream, came)

    async def _turn(self, stream: LiveStream, command: Command) -> None:
        """What can be asked of a stream that runs; before it does, nothing is done."""
        match command:
            case messages.Change():
                changed = stream.change(
                    prompt=command.prompt,
                    over_chunks=command.over_chunks,
                    seed=command.seed,
                    strength=command.strength,
                    steps=command.steps,
                )
                await self._tell_granted(await self._answer(changed))
            case messages.Reset():
                await self._tell_granted(await self._answer(stream.reset()))
            case messages.Pause():
                stream.pause()
            case messages.Resume():
                stream.resume()
            case _:
                pass

    def _wishes(self, start: messages.Start) -> Wishes:
        if start.preset not in self._presets:
            known = ", ".join(self._presets)
            raise ConfigError(f"there is no preset {start.preset!r} here; there are: {known}")
        return Wishes(start.preset, start.prompt, start.seed, start.strength, start.steps)

    async def _take(self, arrival: Arrival) -> None:
        stream = self._stream
        captured_s = self._clock.now()
        try:
            if stream is not None and stream.input is not None:
                framing = Framing(stream.facts.size)
                pixels = await asyncio.to_thread(lambda: framing.apply(arrival.load()))
                stream.show(Frame(pixels, arrival.stamp_ms / MS, captured_s))
        finally:
            await self._peer.send(messages.Taken(fps=self._rate.fps))

    async def _run_stream(
        self, wishes: Wishes, snapshot: Snapshot | None, *, may_wait: bool
    ) -> None:
        """Hold a place and play one stream on it, until that ends or is cancelled."""
        try:
            async with self._places.place(self._tell_position, may_wait=may_wait):
                await self._play_stream(wishes, snapshot)
        except StreamGenError as error:
            await self._tell(error, fatal=True)
        except Exception as error:  # the task's root: the visitor hears that it is over
            logger.error("a visit failed", exc_info=error)
            await self._tell(StreamGenError("the server failed; its log says why"), fatal=True)

    async def _play_stream(self, wishes: Wishes, snapshot: Snapshot | None) -> None:
        stream = self._host.open(wishes, self._presets[wishes.preset], snapshot=snapshot)
        self._rate = InputRate(highest_fps=HIGHEST_INPUT_FPS)
        try:
            name, granted = self._sessions.new_id(), await self._answer(stream.granted())
            self._running = RunningSession(
                name, stream, granted_settings(granted, name), self._clock.now(), self._peer.send
            )
            self._sessions.add(self._running)
            await self._tell_granted(granted)
            self._stream = stream
            shown = Shown(self._clock)
            figures = asyncio.create_task(self._tell_figures(stream, shown))
            try:
                await self._deliver(stream, shown)
            finally:
                figures.cancel()
        finally:
            self._stream = None
            if self._running is not None:
                self._sessions.remove(self._running)
                self._running = None
            await asyncio.shield(self._answer(stream.close()))
        await self._peer.send(messages.Ended())

    async def _deliver(self, stream: LiveStream, shown: Shown) -> None:
        """Give the visitor frames at their moments, until the stream ends."""
        pacer = Pacer(
            self._clock,
            content_fps=HIGHEST_OUTPUT_FPS if stream.facts.takes_video else stream.facts.fps,
            max_waiting=OUTPUT_CLIPS * stream.output.capacity,
        )
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        wake = functools.partial(loop.call_soon_threadsafe, changed.set)
        forget = stream.output.when_readable(wake)
        try:
            while not (stream.output.has_ended() and pacer.due_s is None):
                due_s = pacer.due_s
                wait_s = None if due_s is None else max(0.0, due_s - self._clock.now())
                # what is made from text stays where it is until all before it is shown: so its
                # host draws no faster than that, and leaves nothing out
                if stream.input is None and pacer.num_waiting:
                    await asyncio.sleep(wait_s or 0.0)
                else:
                    # not wait_for, which before Python 3.12 forgets that it was cancelled if what
                    # it waits for comes in the same step: the stream would outlive its visitor
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await changed.wait()
                    if changed.is_set():
                        pacer.add(_waiting_frames(stream))
                        changed.clear()
                        if not stream.output.has_ended():
                            forget = stream.output.when_readable(wake)
                if (frame := pacer.take()) is not None:
                    if stream.input is None:
                        frame = replace(frame, pts_s=messages.text_stamp_ms(frame.pts_s) / MS)
                    shown.note(frame, was_shown=await self._peer.show(frame))
            stream.output.get(timeout_s=0.0)  # raises why it ended, if it failed
        finally:
            forget()

    async def _tell_figures(self, stream: LiveStream, shown: Shown) -> None:
        taken = dropped = 0
        while True:
            began_s = self._clock.now()
            await asyncio.sleep(FIGURES_EVERY_S)
            seconds = self._clock.now() - began_s
            before, input_fps = (taken, dropped), 0.0
            if stream.input is not None:
                taken, dropped = stream.input.num_taken, stream.input.num_dropped
                input_fps = (taken - before[0]) / seconds
                if not stream.is_paused:
                    self._rate.observe(
                        num_taken=taken - before[0],
                        num_dropped=dropped - before[1],
                        seconds=seconds,
                    )
            fps, age_s = shown.take(seconds)
            figures = messages.Figures(
                fps=round(fps, 1),
                age_ms=None if age_s is None else round(1000 * age_s, 1),
                input_fps=round(input_fps, 1),
                wanted_fps=round(self._rate.fps, 1),
                dropped=dropped + stream.output.num_dropped + shown.num_left_out,
                streams=self._places.num_inside,
                places=self._places.num_places,
                quality=stream.quality,
            )
            if self._running is not None:
                self._running.figures = figures
            await self._peer.send(figures)

    async def _tell_granted(self, granted: Granted) -> None:
        if self._running is not None:
            self._running.granted = granted_settings(granted, self._running.id)
            await self._peer.send(self._running.granted)

    async def _tell_position(self, position: int) -> None:
        await self._peer.send(messages.Waiting(position=position))

    async def _tell(self, error: StreamGenError, *, fatal: bool) -> None:
        await self._peer.send(messages.problem_of(error, fatal=fatal))

    async def _end_play(self) -> None:
        """End the stream and wait until its place is free.

        If this wait is itself cancelled, the stream ends all the same.
        """
        if self._play is not None:
            self._play.cancel()
            await asyncio.wait([self._play])
            self._play = None

    def _answer(self, future: Future[T]) -> Awaitable[T]:
        return asyncio.wrap_future(future)


class Shown:
    """What has been handed out since somebody looked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._num_shown = 0
        self._ages_s = Summary()
        self.num_left_out = 0

    def note(self, frame: Frame, *, was_shown: bool) -> None:
        if not was_shown:
            self.num_left_out += 1
            return
        self._num_shown += 1
        self._ages_s.add(max(0.0, self._clock.now() - frame.captured_s))

    def take(self, seconds: float) -> tuple[float, float | None]:
        """Frames a second, and their median age in seconds, since the last call."""
        fps, age_s = self._num_shown / seconds, self._ages_s.percentiles().p50
        self._num_shown, self._ages_s = 0, Summary()
        return fps, age_s


def _waiting_frames(stream: LiveStream) -> list[Frame]:
    frames: list[Frame] = []
    for _ in range(stream.output.num_waiting):
        frame = stream.output.get(timeout_s=0.0)
        if frame is not None:
            frames.append(frame)
    return frames


def preset_offer(facts: PresetFacts) -> messages.PresetOffer:
    return messages.PresetOffer(
        name=facts.name,
        description=facts.description,
        knowledge=facts.knowledge,
        takes_video=facts.takes_video,
        width=facts.size.width,
        height=facts.size.height,
        fps=facts.fps,
        steps=facts.steps,
    )


def granted_settings(granted: Granted, session: str) -> messages.GrantedSettings:
    wishes, facts = granted.wishes, granted.facts
    return messages.GrantedSettings(
        preset=facts.name,
        takes_video=facts.takes_video,
        prompt=wishes.prompt,
        seed=facts.seed if wishes.seed is None else wishes.seed,
        strength=wishes.strength,
        steps=facts.steps if wishes.steps is None else wishes.steps,
        width=facts.size.width,
        height=facts.size.height,
        unknown_words=list(granted.unknown_words),
        knowledge=facts.knowledge,
        session=session,
        fps=facts.fps,
        quality=granted.quality,
    )
