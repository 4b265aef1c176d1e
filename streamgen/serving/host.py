"""Several streams on one engine: opens sessions, drives ticks, keeps prompts' features."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from streamgen.clock import Clock, MonotonicClock
from streamgen.diffusion.noise import NoiseSource, SeededNoise
from streamgen.engine.codec import StreamDecoder, StreamEncoder
from streamgen.engine.recipe import Recipe
from streamgen.engine.session import ChunkStarter, Session
from streamgen.engine.start import NoiseStarter, Opening, VideoStarter
from streamgen.errors import ConfigError
from streamgen.media.frame_queue import FileFrameQueue, FrameQueue, LiveFrameQueue
from streamgen.media.pixels import Fit, Framing
from streamgen.media.reader import SourceReader
from streamgen.media.source import FrameSource
from streamgen.models.bundle import ModelBundle
from streamgen.serving.build import (
    Pipeline,
    build_pipeline,
    load_config,
    recipe_with_steps,
    video_start,
)
from streamgen.types import PictureSize, PromptId, SessionId

MAX_PROMPT_CHARACTERS = 2000  # a longer one is a mistake: no text encoder reads so far
SHOWN_CHARACTERS = 60  # of a prompt, in a message
QUEUE_CLIPS = 4  # clips of a file that may wait
LIVE_QUEUE_CLIPS = 1.5  # of a live input: each clip more would be seen that much later
NUM_REMEMBERED_PROMPTS = 16  # whose features are kept, so that switching back costs nothing


@dataclass(frozen=True, slots=True, eq=False)
class OpenSession:
    """A session of the engine, and the thread that feeds it where it has an input."""

    session: Session
    reader: SourceReader | None
    queue: FrameQueue | None


class Host:
    """One model, one engine, many streams. Use from one thread; a context manager."""

    def __init__(
        self,
        preset: str | Path = "tiny-cpu",
        *,
        overrides: Sequence[str] = (),
        clock: Clock | None = None,
        noise: NoiseSource | None = None,
        bundle: ModelBundle | None = None,
    ) -> None:
        """`preset` is a name or a TOML file; `overrides` are settings as "cache.sinks=2"; `bundle`
        takes the place of the model that they name.

        Raises ConfigError, CheckpointError or CapacityError.
        """
        self.pipeline: Pipeline = build_pipeline(
            load_config(preset, overrides),
            clock=clock or MonotonicClock(),
            noise=noise or SeededNoise(),
            bundle=bundle,
        )
        self._prompts: OrderedDict[str, PromptId] = OrderedDict()
        self._negative = self.pipeline.engine.add_prompt(self.pipeline.bundle.text.encode(""))
        self._open: dict[SessionId, OpenSession] = {}

    @property
    def picture_size(self) -> PictureSize:
        return self.pipeline.picture_size

    @property
    def fps(self) -> float:
        return self.pipeline.config.picture.fps

    @property
    def takes_video(self) -> bool:
        return self.pipeline.config.task == "video-to-video"

    def open(
        self,
        prompt: str,
        *,
        source: FrameSource | None = None,
        seed: int | None = None,
        max_frames: int | None = None,
        strength: float | None = None,
        fit: Fit = Fit.CROP,
        opening: Opening | None = None,
        mirrored: bool = False,
    ) -> OpenSession:
        """Begin a session that follows a prompt, and a source where the preset takes video.

        A text-to-video session may go on from an `opening` (streamgen.serving.opening).

        `seed` defaults to the preset's; `max_frames` ends a text-to-video session; `strength` in
        [0, 1] says how far video-to-video may leave its input; `fit` and `mirrored` say how its
        pictures are brought to the stream's size. Raises ConfigError or CapacityError; the source
        is closed then, too.
        """
        try:
            if max_frames is not None and max_frames < 1:
                raise ConfigError(f"{max_frames} frames are no video; ask for at least 1")
            reader, queue = self._reader(
                source, Framing(self.picture_size, fit=fit, mirrored=mirrored)
            )
            recipe = self.pipeline.recipe
            if opening is not None:
                if queue is not None:
                    raise ConfigError(
                        "a stream with an input begins with the input; leave out the first "
                        "picture or the saved stream, or choose a text-to-video preset"
                    )
                recipe = recipe.opening_with(opening.num_frames)
            session = self._open_session(
                prompt, queue, seed, max_frames, strength, recipe, opening=opening
            )
        except BaseException:
            if source is not None:
                source.close()
            raise
        if reader is not None:
            reader.start()
        self._open[session.id] = OpenSession(session, reader, queue)
        return self._open[session.id]

    def open_live(
        self,
        prompt: str,
        *,
        queue: FrameQueue | None,
        seed: int | None = None,
        strength: float | None = None,
        steps: int | None = None,
        max_waiting_clips: int = 1,
    ) -> OpenSession:
        """Begin a session whose pictures, of the stream's size, somebody else puts into `queue`.

        `queue` is None for a preset that makes video from text; it stays the caller's. `steps` are
        at most the preset's; fewer are faster. Few waiting clips let a new prompt show early.
        Raises ConfigError or CapacityError.
        """
        if queue is None and self.takes_video:
            raise ConfigError("this preset restyles video and there is none; choose another preset")
        if queue is not None and not self.takes_video:
            raise ConfigError("this preset makes video from text; choose one that takes video")
        recipe = recipe_with_steps(self.pipeline, steps)
        session = self._open_session(
            prompt, queue, seed, None, strength, recipe, max_waiting_clips=max_waiting_clips
        )
        self._open[session.id] = OpenSession(session, None, queue)
        return self._open[session.id]

    def set_strength(self, opened: OpenSession, strength: float) -> None:
        """Let a session with an input leave it as far, from its next chunk on.

        Raises ConfigError if the strength is not possible or there is no input.
        """
        starter = opened.session.starter
        if not isinstance(starter, VideoStarter):
            raise ConfigError("strength needs an input video; this session has none")
        controller, condition_noise = video_start(self.pipeline, strength, opened.session.recipe)
        starter.start_from(controller, condition_noise)

    @property
    def max_steps(self) -> int:
        """Steps of the preset; a live session may have fewer."""
        return self.pipeline.recipe.num_steps

    def frames_wanted(self) -> int:
        """The most pictures that one chunk of a session takes from its input."""
        pipeline = self.pipeline
        return max(pipeline.geometry.num_pixel_frames(pipeline.recipe, n) for n in (0, 1))

    def close_session(self, opened: OpenSession) -> None:
        """End a session and its reader; once is enough, twice does no harm."""
        if self._open.pop(opened.session.id, None) is None:
            return
        self.pipeline.engine.close(opened.session)
        if opened.reader is not None:
            opened.reader.stop()

    def restart(
        self, opened: OpenSession, prompt: str, *, seed: int | None, strength: float | None
    ) -> OpenSession:
        """Begin a session with an input anew, on what is still to come of that input.

        Nothing that was drawn before is remembered; clips in flight are lost. Raises ConfigError,
        and then the session goes on.
        """
        self.prompt_id(prompt)
        if seed is not None:
            check_seed(seed)
        recipe = opened.session.recipe
        video_start(self.pipeline, strength, recipe)  # raises now what it would later
        del self._open[opened.session.id]
        self.pipeline.engine.close(opened.session)
        session = self._open_session(prompt, opened.queue, seed, None, strength, recipe)
        self._open[session.id] = OpenSession(session, opened.reader, opened.queue)
        return self._open[session.id]

    def next_pts_s(self, opened: OpenSession) -> float:
        """Where in the stream the next chunk of a session will begin, as far as is known."""
        session = opened.session
        if session.next_chunk == 0:
            return 0.0
        before = self.pipeline.geometry.num_pixel_frames(session.recipe, session.next_chunk - 1)
        return session.newest_pts_s + before / self.fps

    def has_open(self, opened: OpenSession) -> bool:
        """Whether the session has not been closed, by itself or with the host."""
        return opened.session.id in self._open

    def set_prompt(self, opened: OpenSession, prompt: str) -> None:
        """Let a session follow another prompt from its next chunk on; ConfigError if it cannot.

        A session that is closed follows nothing more: its new prompt is checked only.
        """
        prompt_id = self.prompt_id(prompt)
        if self.has_open(opened):
            self.pipeline.engine.set_prompt(opened.session, prompt_id)

    def close(self) -> None:
        """End all sessions."""
        for opened in list(self._open.values()):
            self.close_session(opened)

    def prompt_id(self, prompt: str) -> PromptId:
        """The engine's handle of a prompt; its text is encoded once and remembered for a while.

        Raises ConfigError for a prompt that cannot be meant, or that would have no effect.
        """
        check_prompt(prompt)
        if prompt in self._prompts:
            self._prompts.move_to_end(prompt)
            return self._prompts[prompt]
        features_MD = self.pipeline.bundle.text.encode(prompt)
        if not len(features_MD):
            raise ConfigError(
                f"the model knows no word of the prompt {_shortened(prompt)!r}; "
                f"it {self.pipeline.bundle.knowledge}"
            )
        self._prompts[prompt] = self.pipeline.engine.add_prompt(features_MD)
        if len(self._prompts) > NUM_REMEMBERED_PROMPTS:
            _, oldest = self._prompts.popitem(last=False)
            self.pipeline.engine.drop_prompt(oldest)
        return self._prompts[prompt]

    def tick(self) -> bool:
        """Run one tick of all streams; False if nothing could run."""
        return self.pipeline.engine.tick()

    def _reader(
        self, source: FrameSource | None, framing: Framing
    ) -> tuple[SourceReader | None, FrameQueue | None]:
        if source is None:
            if self.takes_video:
                raise ConfigError(
                    "this preset restyles video and has no input; give -i or choose a preset "
                    "whose task is text-to-video (streamgen presets)"
                )
            return None, None
        if not self.takes_video:
            raise ConfigError(
                "this preset makes video from text and takes no input; leave out -i or choose a "
                "preset whose task is video-to-video (streamgen presets)"
            )
        queue: FrameQueue = (
            LiveFrameQueue(math.ceil(LIVE_QUEUE_CLIPS * self.frames_wanted()))
            if source.facts.is_live
            else FileFrameQueue(QUEUE_CLIPS * self.frames_wanted())
        )
        return SourceReader(source, queue, prepare=framing.apply), queue

    def _open_session(
        self,
        prompt: str,
        queue: FrameQueue | None,
        seed: int | None,
        max_frames: int | None,
        strength: float | None,
        recipe: Recipe,
        *,
        opening: Opening | None = None,
        max_waiting_clips: int | None = None,
    ) -> Session:
        pipeline = self.pipeline
        chosen_seed = pipeline.config.engine.seed if seed is None else seed
        check_seed(chosen_seed)
        if queue is None:
            if strength is not None:
                raise ConfigError("strength needs an input video; leave it out or give -i")
            starter: ChunkStarter = self._noise_starter(recipe, chosen_seed, max_frames, opening)
        else:
            starter = self._video_starter(queue, chosen_seed, strength, recipe)
        return pipeline.engine.open(
            recipe,
            make_starter=lambda: starter,
            decoder=StreamDecoder(pipeline.bundle.codec),
            seed=chosen_seed,
            prompt=self.prompt_id(prompt),
            negative_prompt=self._negative,
            max_waiting_clips=max_waiting_clips or pipeline.config.engine.output_queue_clips,
        )

    def _noise_starter(
        self, recipe: Recipe, seed: int, max_frames: int | None, opening: Opening | None
    ) -> NoiseStarter:
        pipeline = self.pipeline
        num_hidden = 0 if opening is None else opening.num_hidden_chunks(recipe)
        max_chunks = None
        if max_frames is not None:
            max_chunks = pipeline.geometry.num_chunks(recipe, max_frames, num_hidden=num_hidden)
        return NoiseStarter(
            recipe,
            pipeline.geometry,
            pipeline.noise,
            seed=seed,
            max_chunks=max_chunks,
            opening=opening,
        )

    def _video_starter(
        self, queue: FrameQueue, seed: int, strength: float | None, recipe: Recipe
    ) -> VideoStarter:
        pipeline = self.pipeline
        controller, condition_noise = video_start(pipeline, strength, recipe)
        return VideoStarter(
            recipe,
            pipeline.geometry,
            pipeline.noise,
            seed=seed,
            queue=queue,
            encoder=StreamEncoder(
                pipeline.bundle.codec, device=pipeline.backend.device, dtype=pipeline.backend.dtype
            ),
            controller=controller,
            schedule=pipeline.schedule,
            condition_noise=condition_noise,
            is_live=isinstance(queue, LiveFrameQueue),
        )

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_prompt(prompt: str) -> None:
    """Raises ConfigError for a prompt that cannot be meant."""
    if not prompt.strip():
        raise ConfigError('the prompt is empty; write what to show, as "a red ball at night"')
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ConfigError(
            f"the prompt has {len(prompt)} characters, {MAX_PROMPT_CHARACTERS} are allowed; "
            f"shorten it"
        )


def check_seed(seed: int) -> None:
    """Raises ConfigError for a seed that noise cannot be made from."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed {seed} is not in 0 to 2**63 - 1; choose another")


def _shortened(prompt: str) -> str:
    return prompt if len(prompt) <= SHOWN_CHARACTERS else f"{prompt[:SHOWN_CHARACTERS]}..."
