"""A live source keeps its picture while its device is away, and its rate whatever that does."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable

import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import SourceError
from streamgen.media.sources.retiming import LiveRateSource
from streamgen.media.sources.steady import LAST_RETRY_S, Device, SteadySource
from streamgen.types import Frame, PictureSize, Pixels
from tests.fake_camera import FakeCamera


def at_once(work: Callable[[], None]) -> None:
    work()


def opened(
    camera: FakeCamera, beside: Callable[[Callable[[], None]], None] = at_once
) -> SteadySource:
    return SteadySource(camera.open, name="webcam:7", clock=camera.clock, beside=beside)


def frames_until(source: SteadySource, end_s: float) -> list[Frame]:
    frames = [source.read()]
    while frames[-1].pts_s < end_s:
        frames.append(source.read())
    return frames


def test_an_unplugged_camera_holds_the_picture_and_comes_back(caplog: pytest.LogCaptureFixture):
    """Back within the longest pause between two tries; no gap is longer than the camera's wait."""
    caplog.set_level(logging.WARNING)
    camera = FakeCamera(SimulatedClock(), gaps_s=((2.0, 20.0),))
    source = opened(camera)
    frames = frames_until(source, 30.0)
    held = [frame for frame in frames if 4.0 <= frame.captured_s < 20.0]
    assert len({id(frame.pixels) for frame in held}) == 1
    assert len(held) >= 15 * camera.fps
    back = next(
        frame for frame in frames if frame.captured_s > 20 and frame.pixels is not held[0].pixels
    )
    assert back.captured_s < 20 + LAST_RETRY_S + 1
    alive = [frame for frame in frames if frame.captured_s > 26]
    assert len({int(frame.pixels[0, 0, 0]) for frame in alive}) > 60
    assert source.num_losses == 1
    assert not source.is_lost
    assert [record.getMessage() for record in caplog.records] == [
        "lost webcam:7; holding its last picture until it is back",
        "webcam:7 is back",
    ]
    source.close()
    assert camera.num_closed == camera.num_opened == 2


def test_times_grow_strictly_and_at_the_pace_of_the_clock():
    camera = FakeCamera(SimulatedClock(5.0), gaps_s=((6.0, 9.0), (12.0, 13.0)))
    frames = frames_until(opened(camera), 15.0)
    assert frames[0].pts_s == 0
    assert all(one.pts_s < two.pts_s for one, two in itertools.pairwise(frames))
    for frame in frames:
        assert frame.pts_s == pytest.approx(frame.captured_s - frames[0].captured_s, abs=1e-3)


def test_a_camera_that_comes_back_with_another_size_is_fitted_in():
    camera = FakeCamera(SimulatedClock(), gaps_s=((1.0, 2.0),), sizes=[PictureSize(100, 50)])
    source = opened(camera)
    frames = frames_until(source, 5.0)
    assert camera.size == PictureSize(100, 50)
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3)}
    assert source.facts.size == PictureSize(48, 64)


def test_a_camera_that_is_not_there_at_the_start_is_an_error():
    camera = FakeCamera(SimulatedClock(), gaps_s=((0.0, 1.0),))
    with pytest.raises(SourceError, match="there is no camera"):
        opened(camera)


def test_a_camera_that_gives_no_picture_at_the_start_is_an_error_and_is_closed():
    camera = FakeCamera(SimulatedClock(), gaps_s=((0.01, 9.0),))
    with pytest.raises(SourceError, match="gives no picture; is another program using it"):
        opened(camera)
    assert camera.num_closed == camera.num_opened == 1


def test_a_camera_that_flaps_is_asked_ever_more_seldom():
    """An hour with a broken plug: opened about every LAST_RETRY_S, not thirty times a second."""
    gaps_s = tuple((second + 0.05, second + 0.99) for second in range(1, 3600))
    camera = FakeCamera(SimulatedClock(), fps=10, gaps_s=gaps_s)
    source = opened(camera)
    frames_until(source, 3590.0)
    assert source.num_losses < 3600
    assert camera.num_opened < 3600
    source.close()
    assert camera.num_closed == camera.num_opened


def lost_while_opening(tries: list[Callable[[], None]]) -> tuple[FakeCamera, SteadySource]:
    """A source that has lost its camera, and whose try to open it again is under way."""
    camera = FakeCamera(SimulatedClock(), gaps_s=((1.0, 2.0),))
    source = opened(camera, beside=tries.append)
    while not tries:
        source.read()
    assert source.is_lost
    return camera, source


def test_the_picture_is_held_at_its_rate_for_as_long_as_an_opening_takes():
    """A minute in which the network does not answer: 30 frames a second, one try and no more."""
    tries: list[Callable[[], None]] = []
    camera, source = lost_while_opening(tries)
    begin_s = camera.clock.now()
    frames = [source.read() for _ in range(60 * 30)]
    assert camera.clock.now() - begin_s == pytest.approx(60)
    assert len({id(frame.pixels) for frame in frames}) == 1
    assert len(tries) == 1
    tries[0]()
    assert source.read().pixels is not frames[0].pixels
    assert not source.is_lost
    source.close()
    assert camera.num_closed == camera.num_opened == 2


def test_a_device_that_opens_after_its_source_was_closed_is_closed_too():
    tries: list[Callable[[], None]] = []
    camera, source = lost_while_opening(tries)
    source.close()
    assert camera.num_opened == camera.num_closed == 1
    camera.clock.advance_to(3.0)
    tries[0]()
    assert camera.num_opened == camera.num_closed == 2


def test_a_device_that_opened_and_was_not_read_any_more_is_closed():
    tries: list[Callable[[], None]] = []
    camera, source = lost_while_opening(tries)
    camera.clock.advance_to(3.0)
    tries[0]()
    source.close()
    assert camera.num_opened == camera.num_closed == 2


def test_a_fault_of_the_program_in_an_opening_reaches_the_reader():
    camera = FakeCamera(SimulatedClock(), gaps_s=((1.0, 2.0),))
    openings = iter([camera.open])

    def open_device() -> Device:
        for opening in openings:
            return opening()
        raise ValueError("a fault")

    source = SteadySource(open_device, name="webcam:7", clock=camera.clock, beside=at_once)
    with pytest.raises(ValueError, match="a fault"):
        frames_until(source, 9.0)


def test_reading_goes_on_while_a_real_thread_opens_the_device():
    """The thread waits until frames were read and the source was closed: neither waits for it."""
    camera = FakeCamera(SimulatedClock(), gaps_s=((1.0, 2.0),))
    may_open, has_closed = threading.Event(), threading.Event()

    class Late:
        facts = FakeCamera(SimulatedClock()).open().facts

        def grab(self) -> Pixels | None:
            return None

        def close(self) -> None:
            has_closed.set()

    openings = iter([camera.open])

    def open_device() -> Device:
        opening = next(openings, None)
        if opening is not None:
            return opening()
        assert may_open.wait(30)
        return Late()

    source = SteadySource(open_device, name="late", clock=camera.clock)
    frames_until(source, 60.0)
    assert source.is_lost
    source.close()
    may_open.set()
    assert has_closed.wait(30)


@pytest.mark.parametrize(("camera_fps", "fps"), [(30, 16), (10, 16), (25, 25), (60, 7.5)])
def test_a_live_source_is_brought_to_the_rate_of_the_stream(camera_fps: float, fps: float):
    """As many frames a second as asked, each the newest there was, none of them late."""
    clock = SimulatedClock()
    source = LiveRateSource(opened(FakeCamera(clock, fps=camera_fps)), fps=fps)
    frames = list(itertools.takewhile(lambda frame: clock.now() < 20, iter(source.read, None)))
    assert len(frames) / 20 == pytest.approx(fps, rel=0.03)
    assert [frame.pts_s for frame in frames] == [index / fps for index in range(len(frames))]
    for frame in frames:
        late_s = frame.captured_s - frames[0].captured_s - frame.pts_s
        assert -1e-6 < late_s < 1 / camera_fps + 1e-6
    assert source.facts.fps == fps
    assert source.facts.is_live


def test_a_gap_stays_a_gap_and_is_not_filled_with_a_burst():
    class Stalling:
        facts = FakeCamera(SimulatedClock()).open().facts

        def __init__(self) -> None:
            self.times_s = iter([0.0, 0.1, 0.2, 60.0, 60.1])

        def read(self) -> Frame | None:
            time_s = next(self.times_s, None)
            return None if time_s is None else Frame(None, time_s, time_s)  # type: ignore[arg-type]

        def close(self) -> None: ...

    source = LiveRateSource(Stalling(), fps=10)
    times_s = [frame.pts_s for frame in iter(source.read, None)]
    assert times_s == pytest.approx([0.0, 0.1, 0.2, 60.0, 60.1])
    assert source.read() is None
