"""One stream, as Python sees it: iterate over its frames, change its prompt while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from streamgen.engine.start import Opening
from streamgen.errors import ConfigError
from streamgen.media.pixels import Fit
from streamgen.media.source import FrameSource
from streamgen.scheduling.service import ServiceLevel
from streamgen.serving.host import Host, OpenSession
from streamgen.serving.opening import (
    opening_from_pictures,
    opening_from_saved,
    picture_frames,
    save_stream,
)
from streamgen.serving.ranges import check_seed
from streamgen.serving.recording import SessionRecorder
from streamgen.serving.timeline import PromptTimeline
from streamgen.types import Clip, Frame, PictureSize


class Stream:
    """An endless (or, with `max_frames` or an input, finite) video; an iterator of frames.

        with Stream("tiny-cpu", prompt="a red ball bouncing over a green field") as stream:
            for frame in stream:
                show(frame.pixels)
                if bored:
                    stream.prompt = "a blue star over the sea at night"

    A new prompt counts from the next chunk on. Several streams share one model and one engine if
    they are given the same `Host`; they may be read in any order, from one thread.
    """

    def __init__(
        self,
        preset: str | Path | Host = "tiny-cpu",
        *,
        prompt: str,
        source: FrameSource | None = None,
        seed: int | None = None,
        max_frames: int | None = None,
        strength: float | None = None,
        fit: Fit = Fit.CROP,
        mirrored: bool = False,
        timeline: PromptTimeline | None = None,
        overrides: Sequence[str] = (),
        first: str | Path | None = None,
        resume: str | Path | None = None,
        record: str | Path | None = None,
        service: ServiceLevel | None = None,
    ) -> None:
        """See `Host` for `preset` and `overrides`, and `Host.open` for the rest and for errors.

        A text-to-video stream may begin with the picture or the clip of the file `first`, brought
        to its size by `fit`, or go on where another one was when `save` wrote the file `resume`.
        `timeline` has prompts that take the place of `prompt` at their times in the stream; they
        are checked now, and ConfigError says which cannot be followed. `record` names a file for
        `Replay`, which plays the stream again to the same frames.
        """
        if isinstance(preset, Host) and overrides:
            raise ValueError("overrides belong to the Host that this stream shares")
        try:
            self._host = preset if isinstance(preset, Host) else Host(preset, overrides=overrides)
        except BaseException:
            if source is not None:
                source.close()
            raise
        self._opening = self._read_opening(first, resume, fit, source)
        self._has_source = source is not None
        self._seed = seed
        self._strength = strength
        self._prompt = prompt
        self._timeline = timeline or PromptTimeline(())
        self._max_frames = max_frames
        self._num_frames = 0
        self._is_closed = False
        self._service = service
        self._opened = self._host.open(
            prompt,
            source=source,
            seed=seed,
            max_frames=max_frames,
            strength=strength,
            fit=fit,
            mirrored=mirrored,
            opening=self._opening,
            service=service,
        )
        self._recorder: SessionRecorder | None = None
        try:
            for later in reversed(self._timeline.prompts):
                self._host.prompt_id(later)
            if record is not None:
                self._recorder = SessionRecorder(Path(record), self._host.pipeline)
                self._tell_recorder()
        except BaseException:
            self.close()
            raise
        self._frames: Iterator[Frame] = iter(())

    @property
    def picture_size(self) -> PictureSize:
        return self._host.picture_size

    @property
    def fps(self) -> float:
        return self._host.fps

    @property
    def num_frames(self) -> int:
        """Frames handed out so far."""
        return self._num_frames

    @property
    def unknown_words(self) -> tuple[str, ...]:
        """Words of the prompt that the model does not know, so that they have no effect."""
        return self._host.prompts.unknown_words(self._prompt)

    @property
    def knowledge(self) -> str:
        """One or two sentences on what the model can draw."""
        return self._host.pipeline.bundle.knowledge

    @property
    def prompt(self) -> str:
        return self._prompt

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        """Follow another prompt from the next chunk on; ConfigError for an impossible one.

        Raises ValueError if the stream is closed.
        """
        self.change_prompt(prompt, over_chunks=self._host.transition_chunks)

    def change_prompt(self, prompt: str, *, over_chunks: int) -> None:
        """Go over to another prompt within so many chunks, 0 to 1000; errors as of `prompt`."""
        self._check_open()
        self._host.set_prompt(self._opened, prompt, over_chunks=over_chunks)
        self._prompt = prompt
        if self._recorder is not None:
            self._recorder.prompt(prompt, over_chunks=over_chunks)

    @property
    def quality(self) -> str:
        """What the stream gets now, in words; its quality ladder may change it."""
        return str(self._opened.session.quality)

    @property
    def lora_scales(self) -> Mapping[str, float]:
        """LoRAs of the model, shared by all streams of the host, and their scales."""
        return self._host.lora_scales

    @lora_scales.setter
    def lora_scales(self, scales: Mapping[str, float]) -> None:
        """Apply LoRAs at other scales from now on; those not named stay. ConfigError if wrong."""
        self._check_open()
        self._host.set_lora_scales(scales)
        if self._recorder is not None:
            self._recorder.loras(scales)

    @property
    def strength(self) -> float | None:
        """How far the input may be left, 0 to 1; None: as the preset says."""
        return self._strength

    @strength.setter
    def strength(self, strength: float) -> None:
        """Count from the next chunk on; ConfigError if it is not in 0 to 1 or there is no input.

        Raises ValueError if the stream is closed.
        """
        self._check_open()
        self._host.set_strength(self._opened, strength)
        self._strength = strength
        if self._recorder is not None:
            self._recorder.strength(strength)

    def reset(self, *, seed: int | None = None) -> None:
        """Begin anew under the current prompt, with another seed if one is given.

        An input is not played back: it goes on where it is. Raises ValueError if the stream is
        closed; ConfigError for an impossible seed, and then the stream goes on.
        """
        self._check_open()
        chosen = self._seed if seed is None else seed
        if chosen is not None:
            check_seed(chosen)
        self._seed = chosen
        if self._recorder is not None:
            self._recorder.ended(self._num_frames)
        if self._has_source:
            self._opened: OpenSession = self._host.restart(
                self._opened, self._prompt, seed=chosen, strength=self._strength
            )
        else:
            self._host.close_session(self._opened)
            self._opened = self._host.open(
                self._prompt, seed=chosen, max_frames=self._max_frames, opening=self._opening,
                service=self._service,
            )  # fmt: skip
        self._tell_recorder()
        self._frames = iter(())
        self._num_frames = 0

    def save(self, path: str | Path) -> None:
        """Write where the stream is, for the `resume` of another one; SinkError if it cannot be.

        Raises ValueError if the stream is closed.
        """
        self._check_open()
        save_stream(Path(path), self._opened.session, self._host.pipeline, self._prompt)

    def close(self) -> None:
        """End the stream; once is enough, twice does no harm.

        Raises SinkError if it could not be recorded to the end.
        """
        self._is_closed = True
        self._host.close_session(self._opened)
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.ended(self._num_frames)
            recorder.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """The next frame, as soon as it is there.

        Raises SourceError if the input failed, and whatever else ended this stream alone.
        """
        if self._is_closed:
            raise StopIteration
        if self._num_frames == self._max_frames:
            self._host.close_session(self._opened)  # its cache rows are free for others
            raise StopIteration
        frame = next(self._frames, None)
        while frame is None:
            self._frames = self._next_clip()
            frame = next(self._frames, None)
        self._num_frames += 1
        return frame

    def next_clip(self) -> list[Frame]:
        """All frames that are there, waiting for the first; empty at the end. Raises as `next`."""
        clip = [frame for frame in [next(self, None)] if frame is not None]
        while clip and self._num_frames != self._max_frames:
            frame = next(self._frames, None)
            if frame is None:
                break
            self._num_frames += 1
            clip.append(frame)
        return clip

    def _next_clip(self) -> Iterator[Frame]:
        """Tick until a clip of this stream has come out; StopIteration at its end."""
        session, queue = self._opened.session, self._opened.queue
        while self._host.has_open(self._opened):
            if session.clips:
                clip = session.clips.popleft().wait()
                if self._recorder is not None:
                    self._recorder.shown(clip)
                return _frames_of(clip, self.fps)
            if session.failure is not None:
                self._host.close_session(self._opened)
                raise session.failure
            if session.has_ended:
                self._host.close_session(self._opened)
                if queue is not None:
                    queue.get(timeout_s=0.0)  # raises the source's error, if it failed
                break
            later = self._timeline.due(self._host.next_pts_s(self._opened))
            if later is not None:
                self.prompt = later
            self._host.tick()
        raise StopIteration

    def _read_opening(
        self,
        first: str | Path | None,
        resume: str | Path | None,
        fit: Fit,
        source: FrameSource | None,
    ) -> Opening | None:
        """What the stream begins with; whatever this raises, the source is closed."""
        pipeline = self._host.pipeline
        try:
            if first is not None and resume is not None:
                raise ConfigError("a stream begins with a picture or goes on from a saved one")
            if resume is not None:
                return opening_from_saved(Path(resume), pipeline)
            if first is None:
                return None
            return opening_from_pictures(picture_frames(str(first), pipeline, fit), pipeline)
        except BaseException:
            if source is not None:
                source.close()
            raise

    def _tell_recorder(self) -> None:
        if self._recorder is not None:
            self._recorder.opened(
                self._opened.session,
                prompt=self._prompt,
                strength=self._strength,
                opening=self._opening,
                loras=self._host.lora_scales,
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("the stream is closed; open another one")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _frames_of(clip: Clip, fps: float) -> Iterator[Frame]:
    for index, pixels in enumerate(clip.pixels):
        yield Frame(pixels, clip.pts_s + index / fps, clip.captured_s)
