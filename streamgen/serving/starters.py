"""How a session begins its chunks: from noise, or from an input that a thread of its own reads."""

from __future__ import annotations

import math

from streamgen.engine.feed import ClipFeed, QueueFeed
from streamgen.engine.recipe import Recipe
from streamgen.engine.start import NoiseStarter, Opening, VideoStarter
from streamgen.errors import ConfigError
from streamgen.media.frame_queue import FileFrameQueue, FrameQueue, LiveFrameQueue
from streamgen.media.pixels import Framing
from streamgen.media.reader import SourceReader
from streamgen.media.source import FrameSource
from streamgen.serving.build import Pipeline, video_start

QUEUE_CLIPS = 4  # clips of a file that may wait
LIVE_QUEUE_CLIPS = 1.5  # of a live input: each clip more would be seen that much later


def frames_wanted(pipeline: Pipeline) -> int:
    """The most pictures that one chunk of a session takes from its input."""
    return max(pipeline.geometry.num_pixel_frames(pipeline.recipe, n) for n in (0, 1))


def input_of(
    pipeline: Pipeline, source: FrameSource | None, framing: Framing
) -> tuple[SourceReader | None, FrameQueue | None]:
    """A reader, not started yet, that brings a source's pictures to size, and where it puts them.

    Nothing for a preset that makes video from text. Raises ConfigError if the preset wants an input
    and has none, or the other way round.
    """
    takes_video = pipeline.config.task == "video-to-video"
    if source is None:
        if takes_video:
            raise ConfigError(
                "this preset restyles video and has no input; give -i or choose a preset "
                "whose task is text-to-video (streamgen presets)"
            )
        return None, None
    if not takes_video:
        raise ConfigError(
            "this preset makes video from text and takes no input; leave out -i or choose a "
            "preset whose task is video-to-video (streamgen presets)"
        )
    queue: FrameQueue = (
        LiveFrameQueue(math.ceil(LIVE_QUEUE_CLIPS * frames_wanted(pipeline)))
        if source.facts.is_live
        else FileFrameQueue(QUEUE_CLIPS * frames_wanted(pipeline))
    )
    return SourceReader(source, queue, prepare=framing.apply), queue


def noise_starter(
    pipeline: Pipeline,
    recipe: Recipe,
    *,
    seed: int,
    max_frames: int | None,
    opening: Opening | None,
) -> NoiseStarter:
    """Chunks of pure noise after what an `opening` gives; as many as `max_frames` need, or ever."""
    max_chunks = None
    if max_frames is not None:
        num_hidden = 0 if opening is None else opening.num_hidden_chunks(recipe)
        max_chunks = pipeline.geometry.num_chunks(recipe, max_frames, num_hidden=num_hidden)
    return NoiseStarter(
        recipe,
        pipeline.geometry,
        pipeline.noise,
        seed=seed,
        max_chunks=max_chunks,
        opening=opening,
    )


def queue_feed(pipeline: Pipeline, recipe: Recipe, queue: FrameQueue, *, seed: int) -> QueueFeed:
    """Clips out of a queue that an input fills."""
    geometry = pipeline.geometry
    return QueueFeed(
        queue,
        clip_frames=lambda chunk: geometry.num_pixel_frames(recipe, chunk),
        fps=geometry.fps,
        seed=seed,
    )


def video_starter(
    pipeline: Pipeline, recipe: Recipe, feed: ClipFeed, *, seed: int, strength: float | None
) -> VideoStarter:
    """Chunks of what a `feed` gives; ConfigError if `strength` is not in [0, 1]."""
    controller, condition_noise = video_start(pipeline, strength, recipe)
    return VideoStarter(
        pipeline.noise,
        seed=seed,
        feed=feed,
        encoder=pipeline.new_encoder(),
        controller=controller,
        schedule=pipeline.schedule,
        condition_noise=condition_noise,
    )
