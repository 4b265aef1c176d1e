from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import SourceError
from streamgen.media.frame_queue import FileFrameQueue, LiveFrameQueue
from streamgen.media.pixels import Framing
from streamgen.media.reader import SourceReader
from streamgen.media.source import SourceFacts
from streamgen.media.sources.steady import SteadySource
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.types import Frame, PictureSize, Pixels

LONG_S = 10.0
SIZE = PictureSize(6, 8)


class ScriptedSource:
    """Gives `pixels` as often as told, then raises `error` or ends; counts its closings."""

    def __init__(self, num_frames: int | None, error: Exception | None = None) -> None:
        self.num_closed = 0
        self._num_frames = num_frames
        self._error = error
        self._index = 0
        self._pixels = np.zeros((6, 8, 3), np.uint8)

    @property
    def facts(self) -> SourceFacts:
        return SourceFacts(SIZE, 10.0)

    def read(self) -> Frame | None:
        if self._index == self._num_frames:
            if self._error is not None:
                raise self._error
            return None
        self._index += 1
        return Frame(self._pixels, float(self._index - 1), 0.0)

    def close(self) -> None:
        self.num_closed += 1


def test_every_frame_of_a_file_arrives_and_then_the_end() -> None:
    queue = FileFrameQueue(3)
    source = SyntheticSource(SIZE, fps=10, clock=SimulatedClock(), num_frames=20)
    reader = SourceReader(source, queue)
    reader.start()
    times_s: list[float] = []
    while (frame := queue.get(LONG_S)) is not None:
        times_s.append(frame.pts_s)
    assert times_s == [n / 10 for n in range(20)]
    assert reader.stop(LONG_S)


def test_pictures_are_prepared_and_the_same_one_only_once() -> None:
    queue = FileFrameQueue(8)
    num_prepared = 0

    def prepare(pixels: Pixels) -> Pixels:
        nonlocal num_prepared
        num_prepared += 1
        return Framing(PictureSize(2, 4)).apply(pixels)

    reader = SourceReader(ScriptedSource(8), queue, prepare=prepare)
    reader.start()
    assert queue.wait(8, LONG_S)
    clip = queue.get_batch(8)
    assert reader.stop(LONG_S)
    assert clip is not None
    assert clip.pixels.shape == (8, 2, 4, 3)
    assert num_prepared == 1


@pytest.mark.parametrize("error", [SourceError("unplugged"), RuntimeError("unplugged")])
def test_a_failure_reaches_the_queues_reader(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """What the outside world did is only raised; what is a mistake is logged with its traceback."""
    queue = LiveFrameQueue(4)
    source = ScriptedSource(1, error)
    reader = SourceReader(source, queue)
    with caplog.at_level(logging.ERROR):
        reader.start()
        assert queue.get(LONG_S) is not None
        with pytest.raises(type(error), match="unplugged"):
            queue.get(LONG_S)
    assert source.num_closed == 1
    assert [record.levelname for record in caplog.records] == (
        [] if isinstance(error, SourceError) else ["ERROR"]
    )
    assert reader.stop(LONG_S)


@pytest.mark.parametrize("queue_class", [LiveFrameQueue, FileFrameQueue])
def test_stopping_ends_an_endless_source_and_closes_it_once(
    queue_class: type[LiveFrameQueue] | type[FileFrameQueue],
) -> None:
    queue = queue_class(2)
    source = ScriptedSource(None)
    reader = SourceReader(source, queue)
    reader.start()
    assert queue.get(LONG_S) is not None
    assert reader.stop(LONG_S)
    assert reader.stop(LONG_S)
    assert source.num_closed == 1
    assert queue.has_ended()


def test_a_source_that_hangs_is_left_behind_and_told(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    class Hanging(ScriptedSource):
        def read(self) -> Frame | None:
            release.wait(LONG_S)
            return None

    reader = SourceReader(Hanging(None), LiveFrameQueue(1))
    reader.start()
    with caplog.at_level(logging.WARNING):
        assert not reader.stop(timeout_s=0.001)
    assert "did not stop" in caplog.text
    release.set()
    assert reader.stop(LONG_S)


class SilentDevice:
    """Has one picture, and then waits until it is interrupted."""

    def __init__(self) -> None:
        self.waits = threading.Event()
        self.is_interrupted = threading.Event()
        self.is_closed = False
        self._has_given = False

    @property
    def facts(self) -> SourceFacts:
        return SourceFacts(SIZE, 10.0, is_live=True)

    def grab(self) -> Pixels | None:
        if not self._has_given:
            self._has_given = True
            return np.zeros((6, 8, 3), np.uint8)
        self.waits.set()
        assert self.is_interrupted.wait(LONG_S)
        return None

    def interrupt(self) -> None:
        self.is_interrupted.set()

    def close(self) -> None:
        self.is_closed = True


def test_a_device_that_is_silent_is_interrupted_where_it_can_be() -> None:
    """Connected and sending nothing: whoever ends the stream does not wait for its timeout."""
    device = SilentDevice()
    source = SteadySource(lambda: device, name="silent", clock=SimulatedClock())
    reader = SourceReader(source, LiveFrameQueue(3))
    reader.start()
    assert device.waits.wait(LONG_S)
    assert reader.stop(LONG_S)
    assert device.is_closed
