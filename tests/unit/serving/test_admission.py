"""Who is let in, what a router is told beforehand, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from streamgen import Host, Stream
from streamgen.clock import SimulatedClock
from streamgen.engine.batch import Batch, Payload
from streamgen.engine.feed import QueueFeed
from streamgen.errors import CapacityError, ConfigError
from streamgen.media.frame_queue import LiveFrameQueue
from streamgen.scheduling.capacity import Verdict
from streamgen.scheduling.service import Quality, ServiceLevel
from streamgen.types import Frame

SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")
GOVERNED = (*SMALL, "engine.policy=slo_aware", "engine.sessions=2")
BALL = "a red ball over a green field"
SERVICE = ServiceLevel(fps=16, first_frame_s=2.0, min_steps=1)


@pytest.fixture
def host() -> Iterator[Host]:
    """Work costs no time here: the clock does not move by itself."""
    with Host("tiny-cpu", overrides=GOVERNED, clock=SimulatedClock()) as host:
        yield host


def test_a_router_asks_and_nothing_changes(host: Host) -> None:
    for _ in range(3):
        assert host.predict(SERVICE).verdict is Verdict.FULL
    assert host.pipeline.engine.sessions == ()
    with pytest.raises(ConfigError, match=r"service\.fps"):
        host.predict(ServiceLevel(fps=60, first_frame_s=1.0))


def test_who_finds_no_cache_rows_is_told_when_to_come_again(host: Host) -> None:
    with Stream(host, prompt=BALL, service=SERVICE), Stream(host, prompt=BALL, service=SERVICE):
        answer = host.predict(SERVICE)
        assert answer.verdict is Verdict.REFUSED
        assert answer.retry_s is not None
        with pytest.raises(CapacityError, match="try again in") as caught:
            Stream(host, prompt=BALL, service=SERVICE)
        assert caught.value.retry_in_s is not None
        assert caught.value.retry_in_s > 0
    assert host.predict(SERVICE).verdict is Verdict.FULL


class Full:
    """An executor that has no memory the first times that it is asked for a forward."""

    def __init__(self, host: Host, num_failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
        executor = host.pipeline.engine.executor
        submit, self.num_left = executor.submit, num_failures

        def refuse(batch: Batch, payload: Payload) -> None:
            if batch.rows and self.num_left:
                self.num_left -= 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            submit(batch, payload)

        monkeypatch.setattr(executor, "submit", refuse)


def test_the_ladder_answers_memory_that_runs_out(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on with fewer steps; no picture is left out and none comes twice."""
    with Stream(host, prompt=BALL, service=SERVICE, max_frames=40) as stream:
        before = [next(stream) for _ in range(8)]
        quality = stream.quality
        Full(host, 1, monkeypatch)
        after = list(stream)
        assert (quality, stream.quality) == ("2 steps", "1 step")
    times = [frame.pts_s for frame in (*before, *after)]
    assert times == [index / 16 for index in range(40)]


def test_without_a_rung_left_it_says_what_to_do(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = ServiceLevel(fps=16, first_frame_s=2.0)
    with Stream(host, prompt=BALL, service=stubborn) as stream:
        Full(host, 1, monkeypatch)
        with pytest.raises(CapacityError, match=r"no memory is left .* lower engine\.sessions"):
            next(stream)


def test_a_lower_rate_of_a_live_input_finds_room_in_its_queue() -> None:
    """At half the rate a clip of four pictures takes eight of the input, the newest of each two."""
    queue = LiveFrameQueue(6)
    feed = QueueFeed(queue, clip_frames=lambda _: 4, fps=16, seed=0)
    feed.set_quality(Quality(1, rate_divisor=2))
    for number in range(10):
        queue.put(Frame(np.full((2, 2, 3), number, np.uint8), number / 16, number / 16))
    assert feed.ready()
    taken = feed.take()
    assert [int(pixels.max()) for pixels in taken.clip.pixels] == [1, 3, 5, 7]
    feed.set_quality(Quality(1))
    assert queue.capacity == 6
    assert feed.take_lost() == 0


@pytest.mark.parametrize("settings", [{"accepts_tiny_codec": True}, {"min_picture": 0.5}])
def test_what_this_engine_cannot_do_on_the_way_down_is_refused(
    host: Host, settings: dict[str, float]
) -> None:
    service = ServiceLevel(fps=16, first_frame_s=2.0, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"service.{next(iter(settings))} .* has no effect"):
        Stream(host, prompt=BALL, service=service)
