"""Draws a little with every model before the first visitor, who would wait for it otherwise.

What is done once - kernels chosen or compiled, graphs recorded, memory taken, costs measured - is
done then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from streamgen.clock import Clock
from streamgen.engine.executor import LocalExecutor
from streamgen.engine.forward import SEEN_BEFORE_RECORDING
from streamgen.errors import StreamGenError
from streamgen.ops.backend import is_out_of_memory
from streamgen.scheduling.latency import LatencyModel
from streamgen.serving.build import Pipeline
from streamgen.serving.calibration import run_streams
from streamgen.serving.host import Host
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import PresetFacts, Wishes
from streamgen.serving.service import out_of_memory
from streamgen.types import Frame

PICTURES = 12  # that are drawn: a few chunks
LONGEST_S = 600.0  # that a model may take for them, compiling included
SHOW_EVERY_S = 0.05  # a picture to a model that has not drawn anything yet


def warm(host: LiveHost, presets: Sequence[PresetFacts], clock: Clock) -> None:
    """Draw some pictures of each preset; raises what a visitor would have got as an error."""
    for facts in presets:
        stream = host.open(Wishes(facts.name, "warming up"), facts)
        shape, num_drawn, began_s = (facts.size.height, facts.size.width, 3), 0, clock.now()
        still = np.zeros(shape, np.uint8)
        try:
            while num_drawn < PICTURES:
                now_s = clock.now()
                if stream.input is not None:
                    stream.show(Frame(still, now_s, now_s))
                wait_s = LONGEST_S if stream.input is None else SHOW_EVERY_S
                frame = stream.output.get(timeout_s=wait_s)
                num_drawn += frame is not None
                if frame is None and now_s - began_s > LONGEST_S:
                    raise StreamGenError(
                        f"preset {facts.name} drew nothing within {LONGEST_S:.0f} s; see its log"
                    )
        finally:
            stream.close().result()


def warm_engine(
    pipeline: Pipeline, tell: Callable[[str], None], *, num_streams: int | None = None
) -> None:
    """Let everything that is compiled, or recorded for a layout of rows, be so before the first
    session; `tell` gets a line of progress before each step. Nothing where nothing is.

    One stream is begun as often as it takes to record what its window looks like while it fills;
    then any number of streams up to `num_streams` (None: engine.sessions) runs side by side until
    their windows are full. Raises CapacityError if there is no memory for so many.
    """
    if not is_warmed(pipeline):
        return
    num_chunks = _chunks_until_steady(pipeline) + SEEN_BEFORE_RECORDING
    most, began_s = num_streams or pipeline.config.engine.sessions, pipeline.clock.now()
    try:
        for count in range(most, 0, -1):  # what one stream needs is recorded last, and kept longest
            streams = "1 stream" if count == 1 else f"{count} streams at once"
            tell(f"warming up, {most - count + 1} of {most}: {streams}")
            for _ in range(SEEN_BEFORE_RECORDING + 1 if count == 1 else 1):
                run_streams(pipeline, LatencyModel(), num_streams=count, num_chunks=num_chunks)
    except Exception as error:
        if is_out_of_memory(error):
            raise out_of_memory(pipeline) from error
        raise
    tell(f"warmed up in {pipeline.clock.now() - began_s:.1f} s")


def warmed_host(
    make: Callable[[], Host], tell: Callable[[str], None], *, num_streams: int | None = None
) -> Host:
    """Make a host, and warm its engine; errors as of both, and then nothing is left behind."""
    host = make()
    try:
        warm_engine(host.pipeline, tell, num_streams=num_streams)
    except BaseException:
        host.close()
        raise
    return host


def is_warmed(pipeline: Pipeline) -> bool:
    """Whether a model does at first use what it will not do again: not as it runs on a CPU."""
    is_local = isinstance(pipeline.engine.executor, LocalExecutor)  # ranks record each for itself
    return is_local and (pipeline.backend.device.type != "cpu" or pipeline.config.speed.compile)


def _chunks_until_steady(pipeline: Pipeline) -> int:
    recipe = pipeline.recipe
    return math.ceil((recipe.sinks + recipe.ring) / recipe.chunk_frames) + recipe.max_in_flight + 1
