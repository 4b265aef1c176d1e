"""Several outputs of one stream: none waits for another one, and all end together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from streamgen.clock import MonotonicClock, SimulatedClock
from streamgen.errors import ConfigError, SinkError
from streamgen.media.outlet import Pace, SinkPlan
from streamgen.media.pacing import Throttle
from streamgen.media.sink import SinkClosed
from streamgen.metrics.export import Metrics
from streamgen.serving import outputs as outputs_module
from streamgen.serving.outputs import Outputs
from streamgen.types import Frame, PictureSize

SIZE = PictureSize(8, 8)
FPS = 100.0
TIMEOUT_S = 30.0


class TestSink:
    """Notes what it gets; `before` may wait, or raise."""

    __test__ = False

    def __init__(self, before: Callable[[int], object] = lambda number: None) -> None:
        self.frames: list[Frame] = []
        self.ends: list[str] = []
        self._before = before

    def write(self, frame: Frame) -> None:
        self._before(len(self.frames))
        self.frames.append(frame)

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> dict[str, SinkPlan]:
    """What -o NAME means, in place of the real table."""
    plans: dict[str, SinkPlan] = {}
    monkeypatch.setattr(outputs_module, "plan_sink", lambda spec, **wishes: plans[spec])
    return plans


def plan(sink: TestSink, name: str, pace: Pace = Pace.ALL) -> SinkPlan:
    return SinkPlan(name, lambda: sink, pace)


def open_all(*names: str, input_is_live: bool = False, zoom: int = 1) -> Outputs:
    clock = MonotonicClock()
    return Outputs(
        names, size=SIZE, fps=FPS, clock=clock, metrics=Metrics(clock), zoom=zoom,
        input_is_live=input_is_live,
    )  # fmt: skip


def clips(count: int) -> Iterator[list[Frame]]:
    for number in range(count):
        pictures = [np.full((8, 8, 3), (4 * number + n) % 256, np.uint8) for n in range(4)]
        yield [Frame(pixels, (4 * number + n) / FPS, 0.0) for n, pixels in enumerate(pictures)]


def until(is_true: Callable[[], object]) -> None:
    patience = threading.Event()
    for _ in range(int(TIMEOUT_S / 0.01)):
        if is_true():
            return
        patience.wait(0.01)
    raise AssertionError("it did not happen")


def test_every_file_gets_every_frame_however_slow_it_is(planned: dict[str, SinkPlan]) -> None:
    patience = threading.Event()
    quick, slow = TestSink(), TestSink(lambda number: patience.wait(0.001))
    planned |= {"a": plan(quick, "a"), "b": plan(slow, "b")}
    outputs = open_all("a", "b")
    for clip in clips(100):
        assert outputs.put(clip)
    outputs.finish()
    assert [frame.pts_s for frame in quick.frames] == [n / FPS for n in range(400)]
    assert [frame.pts_s for frame in slow.frames] == [n / FPS for n in range(400)]
    assert quick.ends == slow.ends == ["close"]
    assert outputs.num_written == 400


@pytest.mark.parametrize("stuck_pace", list(Pace))
def test_an_output_that_hangs_costs_the_others_nothing(
    stuck_pace: Pace, planned: dict[str, SinkPlan], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One sink never returns from its first frame. A film beside it gets every frame, a live output
    goes on, `put` never waits, and the end comes in time."""
    monkeypatch.setattr(outputs_module, "LIVE_END_S", 3.0)
    monkeypatch.setattr(outputs_module, "FILE_END_S", 1.0)
    release = threading.Event()
    stuck = TestSink(lambda number: release.wait(TIMEOUT_S))
    film, live = TestSink(), TestSink()
    planned |= {
        "stuck": plan(stuck, "stuck", stuck_pace),
        "film": plan(film, "film"),
        "live": plan(live, "live", Pace.CONSTANT),
    }
    outputs = open_all("stuck", "film", "live")
    for clip in clips(300):
        assert outputs.put(clip)
    until(lambda: len(film.frames) == 1200)
    until(lambda: len(live.frames) > 5)
    outputs.finish()
    assert [frame.pts_s for frame in film.frames] == [n / FPS for n in range(1200)]
    assert film.ends == live.ends == ["close"]
    assert "stuck did not end within" in caplog.text
    release.set()
    until(lambda: stuck.ends)
    assert outputs.stats["film"].lost.value == 0


def test_one_of_several_that_fails_is_told_at_once_and_again_at_the_end(
    planned: dict[str, SinkPlan], caplog: pytest.LogCaptureFixture
) -> None:
    def full(number: int) -> None:
        if number == 3:
            raise SinkError("disk is full: a; free space")

    broken, healthy = TestSink(full), TestSink()
    planned |= {"a": plan(broken, "a"), "b": plan(healthy, "b")}
    outputs = open_all("a", "b")
    with caplog.at_level(logging.WARNING):
        for clip in clips(100):
            assert outputs.put(clip)
        until(lambda: broken.ends)
        assert outputs.put(next(clips(1)))
    assert "disk is full: a; free space; the other outputs go on" in caplog.messages
    with pytest.raises(SinkError, match="disk is full"):
        outputs.finish()
    assert len(healthy.frames) == 404
    assert healthy.ends == ["close"]


def test_when_nobody_is_left_the_stream_may_end(planned: dict[str, SinkPlan]) -> None:
    def leave(number: int) -> None:
        raise SinkClosed("gone")

    planned |= {"a": plan(TestSink(leave), "a"), "b": plan(TestSink(leave), "b", Pace.SHOWN)}
    outputs = open_all("a", "b")
    until(lambda: not outputs.put(next(clips(1))))
    outputs.finish()


def test_a_run_that_failed_elsewhere_aborts_every_output(planned: dict[str, SinkPlan]) -> None:
    sinks = {pace.name: TestSink() for pace in Pace}
    planned |= {pace.name: plan(sinks[pace.name], pace.name, pace) for pace in Pace}
    outputs = open_all(*sinks)
    outputs.put(next(clips(1)))
    outputs.abort()
    assert [sink.ends for sink in sinks.values()] == [["abort"]] * 3


def test_what_cannot_be_opened_leaves_nothing_open(planned: dict[str, SinkPlan]) -> None:
    def refuse() -> TestSink:
        raise SinkError("no")

    first = TestSink()
    planned |= {"a": plan(first, "a"), "b": SinkPlan("b", refuse, Pace.ALL)}
    with pytest.raises(SinkError, match="no"):
        open_all("a", "b")
    assert first.ends == ["abort"]
    with pytest.raises(ConfigError, match="-o a is given 2 times; give it once"):
        open_all("a", "a")
    with pytest.raises(ConfigError, match="zoom 17 is not in 1 to 16"):
        open_all("a", zoom=17)


def test_the_last_frames_are_shown_before_a_live_output_ends(planned: dict[str, SinkPlan]) -> None:
    live = TestSink()
    planned["live"] = plan(live, "live", Pace.SHOWN)
    outputs = open_all("live")
    for clip in clips(10):
        outputs.put(clip)
    outputs.finish()
    assert live.frames[-1].pts_s == 39 / FPS


def test_an_output_that_nobody_has_opened_yet_holds_up_nothing(
    planned: dict[str, SinkPlan],
) -> None:
    """It waits for its reader in its own thread; the film beside it is written meanwhile."""
    somebody = threading.Event()
    late, film = TestSink(), TestSink()

    def wait() -> TestSink:
        assert somebody.wait(TIMEOUT_S)
        return late

    waiting = SinkPlan("late", wait, Pace.CONSTANT, reopens=True, waits_for_reader=True)
    planned |= {"late": waiting, "film": plan(film, "film")}
    outputs = open_all("late", "film")
    for clip in clips(50):
        outputs.put(clip)
    until(lambda: len(film.frames) == 200)
    assert not late.frames
    somebody.set()
    until(lambda: outputs.put(next(clips(1))) and late.frames)
    outputs.finish()
    assert late.ends == ["close"]


def test_two_films_of_one_stream_have_the_same_frames(tmp_path: Path) -> None:
    names = [str(tmp_path / "a.mp4"), str(tmp_path / "b.webm")]
    outputs = open_all(*names, zoom=2)
    for clip in clips(5):
        outputs.put([replace(frame, pts_s=frame.pts_s * 10) for frame in clip])
    outputs.finish()
    for name in names:
        with av.open(name) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == 20
        assert (frames[0].width, frames[0].height) == (16, 16)


def test_production_that_could_be_faster_waits_for_its_viewers() -> None:
    """Clips of 4 that take 20 ms for 16 frames/s: half a second ahead at once, then in real time;
    after a stop of ten seconds not more than that is made up for."""
    clock = SimulatedClock()
    throttle = Throttle(clock, fps=16, ahead_s=0.5)
    made_s: list[float] = []
    for number in range(400):
        throttle.wait()
        clock.sleep(10.0 if number == 200 else 0.02)
        throttle.made(4)
        made_s.append(clock.now())
    assert made_s[1] < 0.1
    assert made_s[199] == pytest.approx(200 / 4 - 0.75, abs=0.1)
    assert made_s[399] - made_s[200] == pytest.approx(199 / 4 - 0.75, abs=0.3)
