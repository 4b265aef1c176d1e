"""Before anybody comes: what work costs here, from short streams that nobody sees.

They run on the executor of the pipeline, in an engine of their own, so that neither metrics nor
sessions of the real one know of them. Whatever is compiled or recorded at first use is then ready.
"""

from __future__ import annotations

import numpy as np

from streamgen.engine.collaborators import ChunkStarter
from streamgen.engine.engine import Engine
from streamgen.engine.feed import RecordedFeed, TakenClip
from streamgen.metrics.export import Metrics
from streamgen.scheduling.latency import LatencyModel
from streamgen.serving.build import Pipeline
from streamgen.serving.deciding import make_engine
from streamgen.serving.starters import noise_starter, video_starter
from streamgen.types import Clip

SEED = 0
WARM_UP_CHUNKS = 2  # whose times nobody believes
CHUNKS = 6  # of each stream, for each number of streams


def calibrate(pipeline: Pipeline) -> None:
    """Let the engine's latency model learn from one stream, and from as many as may be open."""
    counts = sorted({1, pipeline.config.engine.sessions})
    run_streams(pipeline, LatencyModel(), num_streams=counts[-1], num_chunks=WARM_UP_CHUNKS)
    for num_streams in counts:
        run_streams(pipeline, pipeline.engine.latency, num_streams=num_streams, num_chunks=CHUNKS)


def run_streams(
    pipeline: Pipeline, latency: LatencyModel, *, num_streams: int, num_chunks: int
) -> None:
    """Begin so many streams together and run each to its end."""
    engine = make_engine(
        pipeline.engine.executor,
        "stream_batch",
        num_rows=pipeline.engine.max_rows,
        clock=pipeline.clock,
        metrics=Metrics(pipeline.clock),
        latency=latency,
    )
    prompt = engine.add_prompt(pipeline.bundle.text.encode(""))  # words cost nothing
    sessions = [
        engine.open(
            pipeline.recipe,
            make_starter=lambda: _starter(pipeline, num_chunks),
            decoder=pipeline.new_decoder(),
            seed=SEED,
            prompt=prompt,
            negative_prompt=prompt,
            max_waiting_clips=num_chunks,
        )
        for _ in range(num_streams)
    ]
    while any(session.next_chunk < num_chunks or session.chunks for session in sessions):
        engine.tick()
    for session in sessions:
        engine.close(session)
    engine.drop_prompt(prompt)
    _settle(engine)


def _settle(engine: Engine) -> None:
    """Let the executor forget all that it was given."""
    while engine.tick():
        pass


def _starter(pipeline: Pipeline, num_chunks: int) -> ChunkStarter:
    recipe, geometry = pipeline.recipe, pipeline.geometry
    if pipeline.config.task == "text-to-video":
        num_frames = sum(geometry.num_pixel_frames(recipe, chunk) for chunk in range(num_chunks))
        return noise_starter(pipeline, recipe, seed=SEED, max_frames=num_frames, opening=None)
    feed = RecordedFeed()
    size = pipeline.picture_size
    for chunk in range(num_chunks):
        num_frames = geometry.num_pixel_frames(recipe, chunk)
        pixels = np.full((num_frames, size.height, size.width, 3), 128, np.uint8)
        feed.put(TakenClip(Clip(pixels, 0.0, 0.0), num_frames, 0.0, pipeline.clock.now()))
    return video_starter(pipeline, recipe, feed, seed=SEED, strength=None)
