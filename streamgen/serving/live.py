"""Live streams: one thread drives the hosts, other threads put frames in, take frames and change
what is drawn.

    a page, a camera, ...                 the thread of LiveHost
    LiveStream.show(frame) -> input ----> Host.tick: encode, denoise, decode
    output.get() <- output <------------- frames of finished clips, oldest dropped
    LiveStream.change(...) -> calls ----> between two ticks

Knows no network and no page.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from streamgen.clock import Clock
from streamgen.errors import ConfigError, StreamGenError
from streamgen.metrics.export import prometheus_text
from streamgen.metrics.json_value import Json
from streamgen.serving.calls import Calls
from streamgen.serving.host import Host
from streamgen.serving.live_facts import Granted, PresetFacts, Wishes, facts_of
from streamgen.serving.live_stream import LiveStream
from streamgen.serving.prompts import check_prompt
from streamgen.serving.ranges import check_seed
from streamgen.serving.service import predicted_sessions
from streamgen.serving.snapshot import Snapshot, restore, take_snapshot
from streamgen.serving.word_worker import WordWorker
from streamgen.types import Frame

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 30.0  # a tick of a large model may take long
STOPPED = "the engine has stopped; restart it"

T = TypeVar("T")


class LiveHost:
    """Hosts by the name of their preset, and the one thread that uses them."""

    def __init__(self, make: Mapping[str, Callable[[], Host]], *, clock: Clock) -> None:
        """`make` has what makes each host; it is called in the thread, by `start`."""
        if not make:
            raise ValueError("a live host needs a preset")
        self._make = dict(make)
        self._clock = clock
        self._hosts: dict[str, Host] = {}
        self._streams: list[LiveStream] = []
        self._calls = Calls()
        self._words = WordWorker()
        self._failure: BaseException | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="live-host", daemon=True)

    # For any thread

    def start(self) -> tuple[PresetFacts, ...]:
        """Load all models; returns what they are.

        Raises ConfigError, CheckpointError or CapacityError, and then there is no thread.
        """
        self._thread.start()
        return self.call(self._load).result()

    def open(
        self, wishes: Wishes, facts: PresetFacts, *, snapshot: Snapshot | None = None
    ) -> LiveStream:
        """Begin a stream, or go on where the snapshot was taken. Never waits.

        Whether that was possible, its `granted` says.
        """
        stream = LiveStream(self, wishes, facts=facts, clip=self._hosts[facts.name].frames_wanted())
        self.ask(stream, lambda: self._begin(stream, snapshot), wishes.prompt)
        return stream

    def stop(self) -> None:
        """End all streams and the thread."""
        self._is_stopping = True
        self._words.stop()
        self._calls.wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT_S)

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` in the thread between two ticks; its result or error is the future's."""
        future = self._calls.add(work)
        if not self._thread.is_alive():
            self._calls.refuse(STOPPED)
        return future

    def ask(
        self, stream: LiveStream, work: Callable[[], T], prompt: str | None = None
    ) -> Future[T]:
        """As `call`, after all that was asked for this stream; a new prompt is encoded first,
        beside the thread if that takes long."""
        words = None if prompt is None else (self._hosts[stream.facts.name].prompts, prompt)
        return self._words.ask(stream.turn, words, lambda: self.call(work))

    @property
    def is_running(self) -> bool:
        """Whether models are loaded and the thread lives."""
        return self._thread.is_alive() and len(self._hosts) == len(self._make)

    def num_streams(self) -> int:
        return len(self._streams)

    @property
    def has_failed(self) -> bool:
        """Whether the thread has ended by itself."""
        return self._failure is not None

    def capacity(self) -> Future[int]:
        """Sessions of its most demanding model that this machine will keep up with."""
        return self.call(
            lambda: min(predicted_sessions(host.pipeline) for host in self._hosts.values())
        )

    def metrics_text(self) -> str:
        """Metrics of all engines in Prometheus' text format; label `preset` tells them apart."""
        return prometheus_text(
            [((("preset", name),), host.pipeline.metrics) for name, host in self._hosts.items()]
        )

    def metrics_json(self) -> dict[str, Json]:
        """Metrics of all engines, by preset."""
        return {name: host.pipeline.metrics.to_json() for name, host in self._hosts.items()}

    def trace(self, preset: str, *, last_s: float) -> dict[str, Json]:
        """What a preset's engine did in the last so many seconds; KeyError if there is none."""
        return self._hosts[preset].pipeline.engine.trace.to_chrome(last_s=last_s)

    # For the thread alone

    def granted(self, stream: LiveStream) -> Granted:
        host = self._host_of(stream)
        text = host.pipeline.bundle.text
        unknown = text.unknown_words(stream.wishes.prompt)
        return Granted(stream.wishes, stream.facts, unknown, stream.quality)

    def snapshot(self, stream: LiveStream, *, leave: bool) -> Snapshot:
        host = self._host_of(stream)
        assert stream.opened is not None
        snapshot = take_snapshot(host.pipeline, stream.opened, stream.wishes)
        if leave:
            stream.is_leaving = True
            host.close_session(stream.opened)
            stream.resume()  # what is finished is shown
        return snapshot

    def change(
        self, stream: LiveStream, asked: Wishes, has_prompt: bool, over_chunks: int | None
    ) -> Granted:
        host, before = self._host_of(stream), stream.wishes
        assert stream.opened is not None
        wanted = replace(
            before,
            prompt=asked.prompt if has_prompt else before.prompt,
            strength=before.strength if asked.strength is None else asked.strength,
            steps=before.steps if asked.steps is None else asked.steps,
            seed=before.seed if asked.seed is None else asked.seed,
        )
        if over_chunks is not None and not has_prompt:
            raise ConfigError("a transition leads to a new prompt; give a prompt with it")
        check_prompt(wanted.prompt)
        if wanted.seed is not None:
            check_seed(wanted.seed)
        if wanted.steps != before.steps or wanted.seed != before.seed:
            self._reopen(stream, wanted)
            return self.granted(stream)
        if wanted.prompt != before.prompt:
            host.set_prompt(stream.opened, wanted.prompt, over_chunks=over_chunks)
        stream.wishes = replace(before, prompt=wanted.prompt)
        if asked.strength is not None:
            host.set_strength(stream.opened, asked.strength)
        stream.wishes = wanted
        return self.granted(stream)

    def reset(self, stream: LiveStream) -> Granted:
        self._host_of(stream)
        self._reopen(stream, stream.wishes)
        return self.granted(stream)

    def end(self, stream: LiveStream, error: Exception | None = None) -> None:
        stream.shut()
        if stream.opened is not None:
            self._hosts[stream.facts.name].close_session(stream.opened)
            stream.opened = None
        if stream in self._streams:
            self._streams.remove(stream)
        if stream.input is not None:
            stream.input.abandon()
        stream.output.close(error)

    def _host_of(self, stream: LiveStream) -> Host:
        """The host of a stream that is open; raises what ended it otherwise."""
        if stream.opened is None or stream.is_leaving:
            stream.output.get(timeout_s=0.0)  # raises the reason, if there is one
            raise ConfigError("the stream has ended; begin another one")
        return self._hosts[stream.facts.name]

    def _load(self) -> tuple[PresetFacts, ...]:
        try:
            for name, make in self._make.items():
                self._hosts[name] = make()
        except BaseException:
            self._is_stopping = True
            raise
        return tuple(facts_of(name, host) for name, host in self._hosts.items())

    def _begin(self, stream: LiveStream, snapshot: Snapshot | None) -> None:
        if stream.is_closed:
            return
        try:
            self._open(stream, stream.wishes)
            if snapshot is not None:
                assert stream.opened is not None
                restore(self._hosts[stream.facts.name].pipeline, stream.opened, snapshot)
        except StreamGenError as error:
            self.end(stream, error)
            return
        self._streams.append(stream)

    def _open(self, stream: LiveStream, wishes: Wishes) -> None:
        host = self._hosts[stream.facts.name]
        stream.opened = host.open_live(
            wishes.prompt,
            queue=stream.input,
            seed=wishes.seed,
            strength=wishes.strength,
            steps=wishes.steps,
        )
        stream.wishes = wishes

    def _reopen(self, stream: LiveStream, wishes: Wishes) -> None:
        """Begin anew under `wishes`; if that cannot be, as before, and the error goes on."""
        assert stream.opened is not None
        self._hosts[stream.facts.name].close_session(stream.opened)
        stream.opened = None
        try:
            self._open(stream, wishes)
        except StreamGenError:
            self._open(stream, stream.wishes)
            raise

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._calls.serve(must_wait=not self._streams)
                self._tick()
        except BaseException as error:  # the thread's root: whoever waits for a frame hears of it
            logger.error("the engine failed", exc_info=error)
            self._failure = error
        finally:
            self._finish()

    def _tick(self) -> None:
        busy = {stream.facts.name for stream in self._streams}
        for name in busy:
            self._hosts[name].tick()
        for stream in list(self._streams):
            self._hand_out(stream)

    def _hand_out(self, stream: LiveStream) -> None:
        """Finished clips to the output. What is made from text waits for room and so slows down."""
        if stream.is_paused or stream.opened is None:
            return
        if stream.opened.session.failure is not None:
            self.end(stream, stream.opened.session.failure)
            return
        meters = self._hosts[stream.facts.name].pipeline.engine.meters
        session = stream.opened.session
        clips, dropped = session.clips, stream.output.num_dropped
        while clips and (stream.input is not None or not stream.output.num_waiting):
            clip = clips.popleft().wait()
            times = [] if stream.input is None else stream.input.times_of(clip)
            for index, pixels in enumerate(clip.pixels):
                if index < len(times):
                    frame = replace(times[index], pixels=pixels)
                else:
                    pts_s = clip.pts_s + index / stream.facts.fps
                    frame = Frame(pixels, pts_s, self._clock.now())
                stream.output.put(frame)
        meters.sink_dropped.add(stream.output.num_dropped - dropped)
        if stream.is_leaving and not clips:
            self.end(stream)

    def _finish(self) -> None:
        """Nobody waits for a thread that is gone."""
        reason = None
        if self._failure is not None:
            reason = StreamGenError("the engine failed; its log says why, and it must be restarted")
        for stream in list(self._streams):
            try:
                self.end(stream, reason)
            except Exception as error:  # an engine that failed may fail again
                logger.error("a stream could not be ended", exc_info=error)
                stream.output.close(reason)
        self._calls.refuse(STOPPED)
