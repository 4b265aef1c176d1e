"""A camera that is faster than the model: what is seen stays young, what is left out counted."""

from __future__ import annotations

import pytest

from streamgen.cache.rows import RowPool
from streamgen.clock import SimulatedClock
from streamgen.engine.batch import Started
from streamgen.engine.engine import Engine
from streamgen.engine.simulated import SimulatedExecutor
from streamgen.media.frame_queue import LiveFrameQueue
from streamgen.media.source import SourceFacts
from streamgen.media.sources.retiming import LiveRateSource
from streamgen.metrics.export import Metrics
from streamgen.scheduling.policy import StreamBatch
from streamgen.serving.starters import LIVE_QUEUE_CLIPS
from streamgen.types import Frame, PictureSize
from tests.media_files import grey
from tests.small_engine import NoClip, small_recipe, text

CLIP = 4  # frames of a chunk
CAMERA_FPS, STREAM_FPS = 30.0, 16.0
PICTURE = grey(0, height=1, width=1)


class CameraSoFar:
    """All that a camera has given until now; None where a real one would wait for the next."""

    facts = SourceFacts(PictureSize(1, 1), CAMERA_FPS, is_live=True)

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._num_read = 0

    def read(self) -> Frame | None:
        time_s = self._num_read / CAMERA_FPS
        if time_s > self._clock.now():
            return None
        self._num_read += 1
        return Frame(PICTURE, time_s, time_s)

    def close(self) -> None: ...


class LiveStarter:
    """Takes clips from a live queue, as video-to-video does."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._source = LiveRateSource(CameraSoFar(clock), fps=STREAM_FPS)
        self.queue = LiveFrameQueue(int(LIVE_QUEUE_CLIPS * CLIP))

    @property
    def waiting_clips(self) -> int:
        return self.queue.num_waiting // CLIP

    def ready(self) -> bool:
        while (frame := self._source.read()) is not None:
            self.queue.put(frame)
        return self.queue.num_waiting >= CLIP

    def has_ended(self) -> bool:
        return False

    def drop(self, num_clips: int) -> None:
        for _ in range(num_clips):
            self.queue.get_batch(CLIP)

    def start(self, chunk: int) -> Started:
        clip = self.queue.get_batch(CLIP)
        assert clip is not None
        return Started(None, None, None, None, clip.pts_s, clip.captured_s, CLIP)  # type: ignore[arg-type]


class Ages:
    """Seconds from the capture of a clip's first frame to its being drawn, in order."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self.ages_s: list[float] = []

    def decode(
        self, latents_FCHW: object, *, num_frames: int, pts_s: float, captured_s: float
    ) -> NoClip:
        self.ages_s.append(self._clock.now() - captured_s)
        return NoClip()


@pytest.mark.parametrize(("steps", "tick_s"), [(1, 0.8), (2, 0.8), (4, 0.8), (2, 0.2)])
def test_latency_does_not_grow_when_a_camera_outruns_the_model(steps: int, tick_s: float):
    """30 frames/s into a model of 5 (or 20) for ten minutes: each clip is drawn no later than what
    the queue may hold and its ticks take, the last as the first; frames are drawn or counted."""
    clock = SimulatedClock()
    starter, ages = LiveStarter(clock), Ages(clock)
    recipe = small_recipe(steps=steps)
    engine = Engine(
        SimulatedExecutor(clock, (lambda rows: tick_s,)),
        StreamBatch(),
        rows=RowPool(recipe.num_cache_rows),
        max_rows=recipe.num_cache_rows,
        clock=clock,
        metrics=Metrics(clock),
    )
    prompt = engine.add_prompt(text(0))
    session = engine.open(
        recipe, make_starter=lambda: starter, decoder=ages, seed=0, prompt=prompt,
        negative_prompt=prompt, max_waiting_clips=4,
    )  # fmt: skip
    while clock.now() < 600:
        engine.tick()
        session.clips.clear()
    longest_s = LIVE_QUEUE_CLIPS * CLIP / STREAM_FPS + steps * tick_s + 1 / CAMERA_FPS
    assert max(ages.ages_s) < longest_s + tick_s
    minute = len(ages.ages_s) // 10
    assert max(ages.ages_s[-minute:]) == pytest.approx(max(ages.ages_s[:minute]), abs=0.07)
    queue = starter.queue
    given = queue.num_taken + queue.num_dropped + queue.num_waiting
    assert given == pytest.approx(600 * STREAM_FPS, abs=STREAM_FPS)
    assert (queue.num_dropped > 10) == (CLIP / tick_s < STREAM_FPS)
