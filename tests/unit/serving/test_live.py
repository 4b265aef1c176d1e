"""Live streams: one thread for all models, any number of threads around it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from streamgen import Host
from streamgen.clock import MonotonicClock
from streamgen.errors import CapacityError, ConfigError, SourceError, StreamGenError
from streamgen.media.frame_queue import FrameQueue
from streamgen.media.sources.synthetic import moving_picture
from streamgen.serving.host import OpenSession
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import PresetFacts, Wishes
from streamgen.serving.live_input import LiveInput
from streamgen.serving.live_stream import LiveStream
from streamgen.types import Frame, PictureSize, Pixels

SIZE = PictureSize(64, 64)
SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")
CLIP = 4
WAIT_S = 20.0  # far more than anything here takes
TEXT, VIDEO, SAME = "tiny-cpu", "tiny-cpu-v2v", "identity-cpu"
SKETCH = "a pencil sketch"
Facts = dict[str, PresetFacts]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[LiveHost, Facts]]:
    clock = MonotonicClock()
    make = {name: partial(Host, name, overrides=SMALL, clock=clock) for name in (TEXT, VIDEO, SAME)}
    host = LiveHost(make, clock=clock)
    try:
        yield host, {facts.name: facts for facts in host.start()}
    finally:
        host.stop()


def frames(stream: LiveStream, count: int) -> list[Frame]:
    """The next frames of a stream; a picture is shown for each that a video preset needs."""
    seen: list[Frame] = []
    while len(seen) < count:
        if stream.input is not None:
            show(stream, len(seen))
        frame = stream.output.get(timeout_s=WAIT_S if stream.input is None else 0.02)
        if frame is not None:
            seen.append(frame)
    return seen


def show(stream: LiveStream, index: int) -> bool:
    return stream.show(Frame(moving_picture(index, SIZE), index / 30, index * 0.5))


def in_order(stream: LiveStream, pictures: list[Pixels]) -> list[Frame]:
    """What becomes of these pictures, shown one after the other."""
    seen: list[Frame] = []
    for index, pixels in enumerate(pictures):
        stream.show(Frame(pixels, index / 30, float(index)))
        frame = stream.output.get(timeout_s=WAIT_S)
        assert frame is not None
        seen.append(frame)
    return seen


def test_what_is_on_offer_is_told_before_a_stream_is_opened(running: tuple[LiveHost, Facts]):
    _, facts = running
    assert [facts[name].takes_video for name in (TEXT, VIDEO, SAME)] == [False, True, True]
    assert facts[VIDEO].size == SIZE
    assert facts[TEXT].knowledge.startswith("draws one ball")


def test_frames_come_out_with_the_times_of_the_frames_that_they_were_drawn_from(
    running: tuple[LiveHost, Facts],
):
    host, facts = running
    stream = host.open(Wishes(SAME, "any"), facts[SAME])
    pictures = [moving_picture(index, SIZE) for index in range(5)]
    seen = in_order(stream, pictures)
    assert np.array_equal([frame.pixels for frame in seen], pictures)
    assert [(frame.pts_s, frame.captured_s) for frame in seen] == [(i / 30, i) for i in range(5)]
    stream.close().result(WAIT_S)


def test_two_streams_of_a_host_never_mix(running: tuple[LiveHost, Facts]):
    host, facts = running
    streams = [host.open(Wishes(SAME, "any"), facts[SAME]) for _ in range(2)]
    shades = (40, 200)
    for _ in range(10):
        for stream, shade in zip(streams, shades, strict=True):
            pixels = np.full((SIZE.height, SIZE.width, 3), shade, np.uint8)
            (frame,) = in_order(stream, [pixels])
            assert np.array_equal(frame.pixels, pixels)
    for stream in streams:
        stream.close().result(WAIT_S)
    assert host.num_streams() == 0


def test_text_is_drawn_no_faster_than_it_is_taken(running: tuple[LiveHost, Facts]):
    host, facts = running
    stream = host.open(Wishes(TEXT, "a red ball"), facts[TEXT])
    seen = frames(stream, 5 * CLIP)
    assert [frame.pts_s for frame in seen] == [index / 16 for index in range(5 * CLIP)]
    assert stream.output.num_dropped == 0
    stream.close().result(WAIT_S)


def test_prompt_and_strength_change_on_the_way(running: tuple[LiveHost, Facts]):
    host, facts = running
    stream = host.open(Wishes(VIDEO, SKETCH, strength=0.2), facts[VIDEO])
    before = stream.opened
    granted = stream.change(prompt="sepia film", strength=0.7).result(WAIT_S)
    assert (granted.wishes.prompt, granted.wishes.strength) == ("sepia film", 0.7)
    assert stream.opened is before or before is None
    stream.close().result(WAIT_S)


def test_a_new_prompt_may_take_over_within_some_chunks(
    running: tuple[LiveHost, Facts], monkeypatch: pytest.MonkeyPatch
):
    host, facts = running
    asked: list[int | None] = []
    follow = Host.set_prompt

    def note(self: Host, opened: OpenSession, prompt: str, *, over_chunks: int | None) -> None:
        asked.append(over_chunks)
        follow(self, opened, prompt, over_chunks=over_chunks)

    monkeypatch.setattr(Host, "set_prompt", note)
    stream = host.open(Wishes(VIDEO, SKETCH), facts[VIDEO])
    assert stream.change(prompt="ice", over_chunks=3).result(WAIT_S).wishes.prompt == "ice"
    stream.change(prompt=SKETCH).result(WAIT_S)
    assert asked == [3, None]
    stream.close().result(WAIT_S)


def test_another_number_of_steps_begins_anew_with_fewer_cache_rows(
    running: tuple[LiveHost, Facts],
):
    host, facts = running
    stream = host.open(Wishes(VIDEO, SKETCH), facts[VIDEO])
    stream.granted().result(WAIT_S)
    assert stream.opened is not None
    whole = len(stream.opened.session.cache_rows)
    assert stream.change(steps=2).result(WAIT_S).wishes.steps == 2
    assert stream.opened is not None
    assert len(stream.opened.session.cache_rows) == whole // 2
    assert len(frames(stream, 2 * CLIP)) == 2 * CLIP
    stream.close().result(WAIT_S)


def test_a_reset_draws_the_same_again(running: tuple[LiveHost, Facts]):
    host, facts = running
    stream = host.open(Wishes(TEXT, "a red ball", seed=5), facts[TEXT])
    first = frames(stream, CLIP)
    stream.pause()
    stream.reset().result(WAIT_S)
    while stream.output.get(timeout_s=0.0) is not None:
        pass  # what was drawn before the reset
    stream.resume()
    again = frames(stream, CLIP)
    assert np.array_equal([f.pixels for f in first], [f.pixels for f in again])
    stream.close().result(WAIT_S)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "xyzzy"}, "knows no word"),
        ({"steps": 9}, "9 steps are not in 1 to 4"),
        ({"steps": 0}, "0 steps are not in 1 to 4"),
        ({"seed": -1}, "seed -1 is not in"),
        ({"strength": 2.0}, "strength 2 is not in 0 to 1"),
        ({"prompt": "ice", "over_chunks": -1}, "-1 chunks is not in 0 to 1000"),
        ({"over_chunks": 3}, "give a prompt with it"),
    ],
)
def test_an_impossible_change_leaves_the_stream_as_it_was(
    running: tuple[LiveHost, Facts], change: dict[str, object], words: str
):
    host, facts = running
    stream = host.open(Wishes(VIDEO, SKETCH), facts[VIDEO])
    with pytest.raises(ConfigError, match=words):
        stream.change(**change).result(WAIT_S)  # pyright: ignore[reportArgumentType]
    assert stream.granted().result(WAIT_S).wishes == Wishes(VIDEO, SKETCH)
    assert len(frames(stream, CLIP)) == CLIP
    stream.close().result(WAIT_S)


def test_a_stream_that_cannot_begin_says_why_and_holds_nothing(running: tuple[LiveHost, Facts]):
    host, facts = running
    stream = host.open(Wishes(VIDEO, "xyzzy"), facts[VIDEO])
    with pytest.raises(ConfigError, match="knows no word"):
        stream.granted().result(WAIT_S)
    with pytest.raises(ConfigError, match="knows no word"):
        stream.output.get(timeout_s=WAIT_S)
    assert host.num_streams() == 0


def test_a_host_that_is_full_refuses_and_serves_the_others(running: tuple[LiveHost, Facts]):
    host, facts = running
    streams = [host.open(Wishes(SAME, "any"), facts[SAME]) for _ in range(facts[SAME].sessions + 1)]
    with pytest.raises(CapacityError):
        streams[-1].granted().result(WAIT_S)
    assert len(frames(streams[0], 3)) == 3
    for stream in streams:
        stream.close().result(WAIT_S)
    after = host.open(Wishes(SAME, "any"), facts[SAME])
    assert len(frames(after, 1)) == 1
    after.close().result(WAIT_S)


def test_a_closed_stream_takes_nothing_more_and_closing_twice_does_no_harm(
    running: tuple[LiveHost, Facts],
):
    host, facts = running
    stream = host.open(Wishes(SAME, "any"), facts[SAME])
    stream.granted().result(WAIT_S)
    stream.close().result(WAIT_S)
    stream.close().result(WAIT_S)
    assert not show(stream, 0)
    assert stream.output.has_ended()
    with pytest.raises(ConfigError, match="has ended"):
        stream.change(prompt="else").result(WAIT_S)


def test_a_stream_closed_before_it_began_never_begins(running: tuple[LiveHost, Facts]):
    host, facts = running
    stream = host.open(Wishes(SAME, "any"), facts[SAME])
    stream.close().result(WAIT_S)
    assert host.num_streams() == 0


def test_a_pause_draws_nothing_and_forgets_what_is_shown_meanwhile(
    running: tuple[LiveHost, Facts],
):
    host, facts = running
    stream = host.open(Wishes(SAME, "any"), facts[SAME])
    assert len(frames(stream, 2)) == 2
    stream.pause()
    assert all(show(stream, index) for index in range(5))
    stream.granted().result(WAIT_S)  # a tick has gone by
    assert stream.input is not None
    assert stream.input.num_waiting == 0
    stream.resume()
    assert len(frames(stream, 2)) == 2
    stream.close().result(WAIT_S)


class BrokenHost(Host):
    """Works until it has to draw."""

    def tick(self) -> bool:
        raise RuntimeError("the device fell off")


def test_an_engine_that_fails_tells_everybody_and_hangs_nobody():
    clock = MonotonicClock()
    host = LiveHost({SAME: partial(BrokenHost, SAME, overrides=SMALL, clock=clock)}, clock=clock)
    (facts,) = host.start()
    stream = host.open(Wishes(SAME, "any"), facts)
    with pytest.raises(StreamGenError, match="the engine failed"):
        stream.output.get(timeout_s=WAIT_S)
    with pytest.raises(StreamGenError, match="restart"):
        stream.change(prompt="else").result(WAIT_S)
    host.stop()


def test_a_picture_of_another_size_is_refused(running: tuple[LiveHost, Facts]):
    host, facts = running
    stream = host.open(Wishes(SAME, "any"), facts[SAME])
    with pytest.raises(ValueError, match="10x12, not of 64x64"):
        stream.show(Frame(moving_picture(0, PictureSize(12, 10)), 0.0, 0.0))
    stream.close().result(WAIT_S)


def test_the_failure_of_one_session_ends_its_own_stream_only(running: tuple[LiveHost, Facts]):
    host, facts = running
    broken, sound = (host.open(Wishes(SAME, "any"), facts[SAME]) for _ in range(2))
    broken.granted().result(WAIT_S)
    assert broken.opened is not None
    broken.opened.session.failure = SourceError("the cable was pulled")
    with pytest.raises(SourceError, match="the cable was pulled"):
        broken.output.get(timeout_s=WAIT_S)
    assert len(frames(sound, 2)) == 2
    sound.close().result(WAIT_S)


def test_models_that_cannot_be_loaded_are_an_error_at_the_start():
    clock = MonotonicClock()
    host = LiveHost({"x": partial(Host, "tiny-gpu-7", clock=clock)}, clock=clock)
    with pytest.raises(ConfigError, match="no preset"):
        host.start()
    host.stop()


def test_clips_that_were_dropped_are_skipped_when_times_are_looked_up():
    queue: FrameQueue = LiveInput(4)
    assert isinstance(queue, LiveInput)
    clips = []
    for index in range(8):
        queue.put(Frame(moving_picture(index, SIZE), float(index), 10.0 + index))
        if index % 2:
            clips.append(queue.get_batch(2))
    assert queue.get_batch(2) is None
    assert clips[1] is not None
    assert [frame.pts_s for frame in queue.times_of(clips[1])] == [2.0, 3.0]
    assert clips[3] is not None
    assert [frame.captured_s for frame in queue.times_of(clips[3])] == [16.0, 17.0]


def test_a_stream_of_text_takes_no_pictures(running: tuple[LiveHost, Facts]):
    host, facts = running
    stream = host.open(Wishes(TEXT, "a red ball"), facts[TEXT])
    with pytest.raises(ValueError, match="takes no pictures"):
        show(stream, 0)
    stream.close().result(WAIT_S)
