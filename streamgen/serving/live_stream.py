"""One live stream as other threads see it: put pictures in, take pictures, ask for changes.

Knows its host by what it asks of it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from streamgen.media.frame_queue import LiveFrameQueue
from streamgen.media.pixels import size_of
from streamgen.serving.host import OpenSession
from streamgen.serving.live_facts import Granted, PresetFacts, Wishes
from streamgen.serving.live_input import LiveInput
from streamgen.serving.snapshot import Snapshot
from streamgen.serving.word_worker import Turn
from streamgen.types import Frame

SPARE_FRAMES = 2  # of input that may wait beside a clip: a tick may last longer than a frame
OUTPUT_CLIPS = 2  # finished clips that wait for whoever shows them; then the oldest are dropped

T = TypeVar("T")


class StreamOwner(Protocol):
    """The thread that draws streams; what it does for one is asked through `ask`."""

    def ask(
        self, stream: LiveStream, work: Callable[[], T], prompt: str | None = None
    ) -> Future[T]: ...

    def granted(self, stream: LiveStream) -> Granted: ...

    def change(
        self, stream: LiveStream, asked: Wishes, has_prompt: bool, over_chunks: int | None
    ) -> Granted: ...

    def reset(self, stream: LiveStream) -> Granted: ...

    def snapshot(self, stream: LiveStream, *, leave: bool) -> Snapshot: ...

    def end(self, stream: LiveStream) -> None: ...


class LiveStream:
    """One live stream; made by LiveHost.open. Every method may be called from any thread.

    `output` has frames of the stream's size with the `pts_s` and `captured_s` of the input frame
    that each was drawn from (without an input: place in the stream, and when it was decoded). It is
    closed at the stream's end, with the error if there was one.
    """

    def __init__(self, host: StreamOwner, wishes: Wishes, *, facts: PresetFacts, clip: int) -> None:
        self._host = host
        self.facts = facts
        self.wishes = wishes
        self.input = LiveInput(clip + SPARE_FRAMES) if facts.takes_video else None
        self.output = LiveFrameQueue(OUTPUT_CLIPS * clip)
        self.opened: OpenSession | None = None  # the host's thread alone looks at it
        self.turn = Turn()
        self.num_paused = 0  # frames that came while nobody wanted any
        self._is_paused = False
        self._is_closed = False
        self.is_leaving = False

    def show(self, frame: Frame) -> bool:
        """Give the stream a picture of its size; False once it is closed. Never waits."""
        if self.input is None:
            raise ValueError("this stream is made from text and takes no pictures")
        if size_of(frame.pixels) != self.facts.size:
            raise ValueError(f"a picture of {size_of(frame.pixels)}, not of {self.facts.size}")
        if self._is_paused:
            self.num_paused += 1
            return not self._is_closed
        return self.input.put(frame)

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def shut(self) -> None:
        """Take nothing more; what is under way is the host's to end."""
        self._is_closed = True

    def pause(self) -> None:
        """Draw no more, keep everything; pictures that are shown meanwhile are not looked at."""
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False

    def granted(self) -> Future[Granted]:
        """What the stream is, as soon as it has begun; or why it could not: a StreamGenError."""
        return self._host.ask(self, lambda: self._host.granted(self))

    def change(
        self,
        *,
        prompt: str | None = None,
        over_chunks: int | None = None,
        strength: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ) -> Future[Granted]:
        """Draw otherwise from the next chunk on; None leaves as it is.

        Prompt and strength change on the way, a prompt within `over_chunks` chunks (None: as the
        preset says); with another number of steps or another seed the stream begins anew.
        ConfigError in the future changes nothing.
        """
        asked = Wishes(self.wishes.preset, prompt or "", seed, strength, steps)
        return self._host.ask(
            self,
            lambda: self._host.change(self, asked, prompt is not None, over_chunks),
            prompt,
        )

    def reset(self) -> Future[Granted]:
        """Begin anew, as the stream is now."""
        return self._host.ask(self, lambda: self._host.reset(self))

    @property
    def quality(self) -> str:
        """The rung of its service level that it is on: "full", or what it gets instead."""
        opened = self.opened
        if opened is None or not opened.session.rung:
            return "full"
        return str(opened.session.quality)

    def snapshot(self, *, leave: bool = False) -> Future[Snapshot]:
        """Where the stream is now, for going on elsewhere.

        With `leave` no more is drawn here: the stream ends when what is finished has been shown.
        """
        return self._host.ask(self, lambda: self._host.snapshot(self, leave=leave))

    def close(self) -> Future[None]:
        """End the stream; its place is free when the future is done. Twice does no harm."""
        self.shut()
        return self._host.ask(self, lambda: self._host.end(self))
