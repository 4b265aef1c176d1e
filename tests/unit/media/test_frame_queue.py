from __future__ import annotations

import asyncio
import threading
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, one_of, sampled_from

from streamgen.errors import SourceError
from streamgen.media.frame_queue import FileFrameQueue, FrameQueue, LiveFrameQueue
from streamgen.types import Frame

LONG_S = 10.0  # longer than any test may take; never waited for when all is well


def frame(number: int) -> Frame:
    return Frame(np.full((2, 2, 3), number % 256, np.uint8), pts_s=float(number), captured_s=0.0)


def drain(queue: FrameQueue) -> list[int]:
    taken: list[int] = []
    while (next_frame := queue.get(timeout_s=0)) is not None:
        taken.append(int(next_frame.pts_s))
    return taken


def either_queue(capacity: int) -> list[FrameQueue]:
    return [LiveFrameQueue(capacity), FileFrameQueue(capacity)]


@given(capacity=integers(1, 8), num_frames=integers(0, 30))
def test_a_full_live_queue_keeps_the_newest_in_order_and_counts_the_rest(
    capacity: int, num_frames: int
) -> None:
    queue = LiveFrameQueue(capacity)
    for number in range(num_frames):
        assert queue.put(frame(number))
    assert queue.num_waiting == min(capacity, num_frames)
    assert drain(queue) == list(range(max(0, num_frames - capacity), num_frames))
    assert queue.num_dropped == max(0, num_frames - capacity)


@given(
    capacity=integers(3, 8),
    actions=lists(one_of(sampled_from(["put", "get"]), integers(1, 3)), max_size=60),
)
def test_every_frame_of_a_live_queue_is_taken_dropped_or_waiting(
    capacity: int, actions: list[str | int]
) -> None:
    """Nothing is lost, nothing comes twice, and what comes out grows strictly."""
    queue = LiveFrameQueue(capacity)
    num_put = 0
    seen: list[float] = []
    for action in actions:
        if action == "put":
            queue.put(frame(num_put))
            num_put += 1
        elif action == "get":
            taken = queue.get(timeout_s=0)
            seen += [] if taken is None else [taken.pts_s]
        else:
            assert isinstance(action, int)
            clip = queue.get_batch(action)
            if clip is not None:
                assert clip.num_frames == action
                seen += [clip.pts_s + number for number in range(action)]
        assert queue.num_waiting <= capacity
        assert num_put == queue.num_taken + queue.num_dropped + queue.num_waiting
    assert seen == sorted(set(seen))
    assert len(seen) == queue.num_taken


@given(capacity=integers(1, 5), num_frames=integers(0, 40))
def test_a_file_queue_hands_every_frame_to_a_slower_reader(capacity: int, num_frames: int) -> None:
    queue = FileFrameQueue(capacity)

    def write() -> None:
        for number in range(num_frames):
            assert queue.put(frame(number))
        queue.close()

    writer = threading.Thread(target=write)
    writer.start()
    taken: list[int] = []
    while (next_frame := queue.get(timeout_s=LONG_S)) is not None:
        taken.append(int(next_frame.pts_s))
    writer.join(LONG_S)
    assert taken == list(range(num_frames))
    assert queue.num_dropped == 0
    assert queue.has_ended()


def test_a_batch_is_exactly_as_long_as_asked_or_not_there() -> None:
    for queue in either_queue(4):
        for number in range(3):
            queue.put(frame(number))
        assert queue.get_batch(4) is None
        assert queue.num_waiting == 3
        clip = queue.get_batch(2)
        assert clip is not None
        assert clip.pixels.shape == (2, 2, 2, 3)
        assert clip.pixels[:, 0, 0, 0].tolist() == [0, 1]
        assert clip.pts_s == 0.0


def test_a_batch_that_could_never_fit_is_a_programming_error() -> None:
    for queue in either_queue(4):
        with pytest.raises(ValueError, match="a queue of 4 frames never holds 5"):
            queue.get_batch(5)
        with pytest.raises(ValueError, match="never holds 0"):
            queue.wait(0)
    with pytest.raises(ValueError, match="at least one frame"):
        LiveFrameQueue(0)


def test_after_close_the_reader_takes_what_is_left_and_then_sees_the_end() -> None:
    for queue in either_queue(4):
        queue.put(frame(0))
        queue.put(frame(1))
        queue.close()
        queue.close(SourceError("comes too late to count"))
        assert not queue.put(frame(2))
        assert queue.has_ended(num_frames=3)
        assert not queue.has_ended()
        assert drain(queue) == [0, 1]
        assert queue.has_ended()
        assert queue.get(timeout_s=LONG_S) is None
        assert queue.get_batch(2) is None


def test_an_error_reaches_the_reader_after_the_frames_before_it() -> None:
    for queue in either_queue(4):
        queue.put(frame(0))
        queue.close(SourceError("the camera was unplugged"))
        taken = queue.get()
        assert taken is not None
        for _ in range(2):
            with pytest.raises(SourceError, match="unplugged"):
                queue.get()
        with pytest.raises(SourceError, match="unplugged"):
            queue.get_batch(1)


def test_get_and_wait_give_up_when_their_time_is_up() -> None:
    for queue in either_queue(4):
        assert queue.get(timeout_s=0.001) is None
        assert not queue.has_ended()
        assert not queue.wait(1, timeout_s=0.001)


def test_a_waiting_reader_wakes_when_enough_frames_are_there() -> None:
    for queue in either_queue(4):
        woke: list[bool] = []
        reader = threading.Thread(target=lambda q=queue, w=woke: w.append(q.wait(2, LONG_S)))
        reader.start()
        queue.put(frame(0))
        queue.put(frame(1))
        reader.join(LONG_S)
        assert woke == [True]


def test_a_waiting_writer_wakes_and_is_told_when_the_reader_has_gone() -> None:
    queue = FileFrameQueue(1)
    queue.put(frame(0))
    taken: list[bool] = []
    writer = threading.Thread(target=lambda: taken.append(queue.put(frame(1))))
    writer.start()
    queue.abandon()
    writer.join(LONG_S)
    assert taken == [False]
    assert queue.num_dropped == 1
    assert queue.has_ended()


def test_when_readable_calls_once_when_the_frames_are_there() -> None:
    for queue in either_queue(4):
        calls: list[str] = []
        queue.when_readable(lambda c=calls: c.append("two"), num_frames=2)
        cancel = queue.when_readable(lambda c=calls: c.append("never"), num_frames=2)
        cancel()
        queue.put(frame(0))
        assert calls == []
        queue.put(frame(1))
        queue.put(frame(2))
        assert calls == ["two"]
        queue.when_readable(lambda c=calls: c.append("at once"))
        assert calls == ["two", "at once"]


def test_when_readable_calls_at_the_end_too() -> None:
    for queue in either_queue(4):
        calls: list[str] = []
        queue.when_readable(lambda c=calls: c.append("end"), num_frames=4)
        queue.close()
        assert calls == ["end"]


def test_when_writable_calls_when_there_is_room() -> None:
    queue = FileFrameQueue(1)
    calls: list[str] = []
    queue.put(frame(0))
    queue.when_writable(lambda: calls.append("room"))
    assert calls == []
    queue.get()
    assert calls == ["room"]
    LiveFrameQueue(1).when_writable(lambda: calls.append("always"))
    assert calls == ["room", "always"]


def test_a_callback_may_use_the_queue() -> None:
    """Callbacks run outside the lock."""
    queue = FileFrameQueue(2)
    taken: list[Frame | None] = []
    queue.when_readable(lambda: taken.append(queue.get()))
    queue.put(frame(7))
    assert [f.pts_s for f in taken if f is not None] == [7.0]


def test_asyncio_can_wait_for_frames_of_another_thread() -> None:
    queue = FileFrameQueue(2)

    async def receive() -> float:
        loop = asyncio.get_running_loop()
        is_there = asyncio.Event()
        queue.when_readable(partial(loop.call_soon_threadsafe, is_there.set))
        writer = threading.Thread(target=queue.put, args=(frame(3),))
        writer.start()
        await asyncio.wait_for(is_there.wait(), LONG_S)
        writer.join(LONG_S)
        received = queue.get(timeout_s=0)
        assert received is not None
        return received.pts_s

    assert asyncio.run(receive()) == 3.0
