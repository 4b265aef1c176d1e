"""Several streams on one engine: opens sessions, drives ticks, keeps prompts' features."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from streamgen.clock import Clock, MonotonicClock
from streamgen.diffusion.noise import NoiseSource, SeededNoise
from streamgen.engine.collaborators import ChunkStarter
from streamgen.engine.recipe import Recipe
from streamgen.engine.recovery import own_starter
from streamgen.engine.session import Session
from streamgen.engine.start import Opening, VideoStarter
from streamgen.engine.terms import ServiceTerms
from streamgen.errors import ConfigError
from streamgen.media.frame_queue import FrameQueue
from streamgen.media.pixels import Fit, Framing
from streamgen.media.reader import SourceReader
from streamgen.media.source import FrameSource
from streamgen.models.bundle import ModelBundle
from streamgen.ops.backend import is_out_of_memory
from streamgen.ops.blending import Blend
from streamgen.parallel.balancer import THRESHOLD
from streamgen.scheduling.capacity import Admission
from streamgen.scheduling.policy import Policy
from streamgen.scheduling.service import ServiceLevel
from streamgen.serving.build import (
    Pipeline,
    build_pipeline,
    load_config,
    recipe_with_steps,
    video_start,
)
from streamgen.serving.calibration import calibrate
from streamgen.serving.prompts import PromptShelf
from streamgen.serving.ranges import check_seed
from streamgen.serving.ranks import divided
from streamgen.serving.service import out_of_memory, predicted, terms
from streamgen.serving.starters import (
    frames_wanted,
    input_of,
    noise_starter,
    queue_feed,
    video_starter,
)
from streamgen.types import PictureSize, PromptId, SessionId

logger = logging.getLogger(__name__)


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
        preset: str | Path | Mapping[str, object] = "tiny-cpu",
        *,
        overrides: Sequence[str] = (),
        clock: Clock | None = None,
        noise: NoiseSource | None = None,
        bundle: ModelBundle | None = None,
        gpus: int = 1, split: str = "layers", codec: str = "first", rebalance: float = THRESHOLD,
        policy: Policy | None = None,
    ) -> None:  # fmt: skip
        """`preset` is a name, a TOML file or a table; `overrides` are settings as "cache.sinks=2";
        `bundle` and `policy` take the place of those that they name.

        `gpus` above 1 divides the model among so many processes (under torchrun: its own), see
        `Ranks`; `close` ends them.
        Raises ConfigError, CheckpointError or CapacityError.
        """
        noise = noise or SeededNoise()
        self._ranks = divided(gpus, split, codec, rebalance, noise)
        self.pipeline: Pipeline = build_pipeline(
            load_config(preset, overrides),
            clock=clock or MonotonicClock(),
            noise=noise,
            bundle=bundle,
            over_ranks=self._ranks,
            policy=policy,
        )
        pipeline, prompts = self.pipeline, self.pipeline.config.prompts
        self.prompts = PromptShelf(
            pipeline.engine,
            pipeline.bundle.text,
            knowledge=pipeline.bundle.knowledge,
            blend=Blend(prompts.blend),
        )
        self._negative: PromptId | None = None
        if pipeline.config.engine.policy == "slo_aware":
            calibrate(pipeline)
        if pipeline.recipe.guidance.is_active:
            self._negative = self.prompts.negative_id(prompts.negative)
        loras = pipeline.bundle.loras
        self._lora_scales: dict[str, float] = {} if loras is None else dict(loras.scales)
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
        source: FrameSource | None = None, seed: int | None = None,
        max_frames: int | None = None, strength: float | None = None, fit: Fit = Fit.CROP,
        opening: Opening | None = None, mirrored: bool = False,
        service: ServiceLevel | None = None,
    ) -> OpenSession:  # fmt: skip
        """Begin a session that follows a prompt, and a source where the preset takes video.

        Text-to-video may go on from an `opening`; `seed` defaults to the preset's; `max_frames`
        ends it; `strength` in [0, 1] says how far video-to-video may leave its input; `fit` and
        `mirrored` say how pictures are brought to the stream's size; `service` replaces the
        preset's. Raises ConfigError or CapacityError; the source is closed then, too.
        """
        try:
            if max_frames is not None and max_frames < 1:
                raise ConfigError(f"{max_frames} frames are no video; ask for at least 1")
            framing = Framing(self.picture_size, fit=fit, mirrored=mirrored)
            reader, queue = input_of(self.pipeline, source, framing)
            recipe = self.pipeline.recipe
            if opening is not None:
                if queue is not None:
                    raise ConfigError(
                        "a stream with an input begins with the input; leave out the first "
                        "picture or the saved stream, or choose a text-to-video preset"
                    )
                recipe = recipe.opening_with(opening.num_frames)
            session = self._open_session(
                prompt, queue, seed, max_frames, strength, recipe, opening=opening, service=service
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
        service: ServiceLevel | None = None,
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
        session = self._open_session(
            prompt, queue, seed, None, strength, recipe_with_steps(self.pipeline, steps),
            max_waiting_clips=max_waiting_clips, service=service,
        )  # fmt: skip
        self._open[session.id] = OpenSession(session, None, queue)
        return self._open[session.id]

    def open_with(
        self, prompt: str, recipe: Recipe, *, make_starter: Callable[[], ChunkStarter], seed: int,
        max_waiting_clips: int, terms: ServiceTerms,
    ) -> OpenSession:  # fmt: skip
        """Begin a session whose chunks and terms are somebody else's; errors as of `open`."""
        prompt_id = self.prompt_id(prompt)
        session = self.pipeline.engine.open(
            recipe,
            make_starter=make_starter,
            decoder=self.pipeline.new_decoder(),
            seed=seed,
            prompt=prompt_id,
            negative_prompt=prompt_id if self._negative is None else self._negative,
            max_waiting_clips=max_waiting_clips,
            terms=terms,
        )
        self.prompts.opened(session, prompt)
        self._open[session.id] = OpenSession(session, None, None)
        return self._open[session.id]

    def set_strength(self, opened: OpenSession, strength: float) -> None:
        """Let a session with an input leave it as far, from its next chunk on.

        Raises ConfigError if the strength is not possible or there is no input.
        """
        starter = own_starter(opened.session)
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
        return frames_wanted(self.pipeline)

    @property
    def transition_chunks(self) -> int:
        """Within how many chunks a new prompt takes over if nobody says otherwise."""
        return self.pipeline.config.prompts.transition_chunks

    def close_session(self, opened: OpenSession) -> None:
        """End a session and its reader; once is enough, twice does no harm."""
        if self._open.pop(opened.session.id, None) is None:
            return
        self.pipeline.engine.close(opened.session)
        self.prompts.closed(opened.session)
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
        self.prompts.closed(opened.session)
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

    def set_prompt(
        self, opened: OpenSession, prompt: str, *, over_chunks: int | None = None
    ) -> None:
        """Let a session follow another prompt from its next chunk on; ConfigError if it cannot.

        It goes over to it within `over_chunks` chunks, by default as many as the preset says. A
        session that is closed follows nothing more: its new prompt is checked only.
        """
        if not self.has_open(opened):
            self.prompts.features(prompt)
            return
        if over_chunks is None:
            over_chunks = self.transition_chunks
        self.prompts.follow(opened.session, prompt, over_chunks=over_chunks)

    def close(self) -> None:
        """End all sessions, and the ranks where there are any."""
        for opened in list(self._open.values()):
            self.close_session(opened)
        if self._ranks is not None:
            self._ranks.close()

    def prompt_id(self, prompt: str) -> PromptId:
        """The engine's handle of a prompt, or of a mix; see `PromptShelf.prompt_id`."""
        return self.prompts.prompt_id(prompt)

    @property
    def lora_scales(self) -> Mapping[str, float]:
        """The model's LoRAs and how strongly each is applied; empty if there are none."""
        return dict(self._lora_scales)

    def set_lora_scales(self, scales: Mapping[str, float]) -> None:
        """Apply LoRAs at these scales from the next tick on, in all streams; others stay.

        Raises ConfigError for a name that is not there or a scale that is not finite.
        """
        for name, scale in scales.items():
            if name not in self._lora_scales:
                known = ", ".join(self._lora_scales) or "none (wan.loras names them)"
                raise ConfigError(f"there is no LoRA {name!r}; loaded: {known}")
            if not math.isfinite(scale):
                raise ConfigError(f"LoRA {name!r}: scale {scale} is not a finite number")
        self._lora_scales |= scales
        if scales:
            self.pipeline.engine.scale_loras(self._lora_scales)

    def tick(self) -> bool:
        """Run one tick of all streams; False if nothing could run.

        Where the device has no memory for it, all sessions go a rung down their quality ladders
        and on from their last pictures; CapacityError if there is no rung left.
        """
        for opened in self._open.values():
            self.prompts.advance(opened.session)
        engine = self.pipeline.engine
        try:
            return engine.tick() if not self._ranks else self._ranks.tick(self.pipeline)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if not engine.run_out_of_memory(self.pipeline.noise):
                raise out_of_memory(self.pipeline) from error
            logger.warning("the device ran out of memory; all streams go on with less")
            return True

    def predict(self, service: ServiceLevel | None = None) -> Admission:
        """What a session with a service level, or the preset's, would be told if it came now.

        For a router before several hosts: FULL; LOWER, with the `rung` of its own quality ladder;
        REFUSED, with `retry_s` on this host's clock (None: never). Nothing is held, and rehearsals
        are remembered. Raises ConfigError if this preset can never do it."""
        return predicted(self.pipeline, service)

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
        service: ServiceLevel | None = None,
    ) -> Session:
        pipeline = self.pipeline
        chosen_seed = pipeline.config.engine.seed if seed is None else seed
        check_seed(chosen_seed)
        if queue is None:
            if strength is not None:
                raise ConfigError("strength needs an input video; leave it out or give -i")
            starter: ChunkStarter = noise_starter(
                pipeline, recipe, seed=chosen_seed, max_frames=max_frames, opening=opening
            )
        else:
            feed = queue_feed(pipeline, recipe, queue, seed=chosen_seed)
            starter = video_starter(pipeline, recipe, feed, seed=chosen_seed, strength=strength)
        return self.open_with(
            prompt,
            recipe,
            make_starter=lambda: starter,
            seed=chosen_seed,
            max_waiting_clips=max_waiting_clips or pipeline.config.engine.output_queue_clips,
            terms=terms(pipeline, service, recipe, queue),
        ).session

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
