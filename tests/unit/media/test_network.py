"""Network outputs over loopback, read back by FFmpeg in another process; and their bad days."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import av
import pytest

from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError, SinkError
from streamgen.media import outlet
from streamgen.media.outlet import Pace
from streamgen.media.outputs import plan_sink
from streamgen.media.sink import SinkClosed
from streamgen.media.sinks.child import Child
from streamgen.media.sinks.network import NetworkSink, network_target
from streamgen.media.sources.synthetic import moving_picture
from streamgen.metrics.export import Metrics
from streamgen.serving.outputs import Outputs
from streamgen.types import Frame, PictureSize
from tests.receiver import Receiver

SIZE = PictureSize(48, 64)
FPS = 30.0
TIMEOUT_S = 40.0
NUM_WANTED = 30


@pytest.fixture
def port() -> int:
    """One that is free now, for TCP as for UDP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    started: list[Receiver] = []
    yield started
    for receiver in started:
        receiver.kill()


def until(step: Callable[[], object]) -> None:
    """Call `step`, 60 times a second, until it says that it is done."""
    patience = threading.Event()
    for _ in range(int(TIMEOUT_S * 60)):
        if step():
            return
        patience.wait(1 / 60)
    raise AssertionError("it did not happen")


class Sender:
    """Writes the pictures of a stream, one after the other, as soon as somebody is there."""

    def __init__(self, url: str) -> None:
        self._target = network_target(url, url.partition(":")[0], SIZE, FPS)
        self.sink: NetworkSink | None = None
        self._num_frames = 0

    def write(self) -> None:
        try:
            self.sink = self.sink or NetworkSink(self._target)
        except SinkError:  # nobody is there yet
            return
        index = self._num_frames
        self._num_frames += 1
        self.sink.write(Frame(moving_picture(index, SIZE), index / FPS, 0.0))


def check(receiver: Receiver) -> None:
    """The right size and rate, and times that grow."""
    assert {picture[:2] for picture in receiver.pictures} == {(SIZE.width, SIZE.height)}
    gaps_s = [later - earlier for earlier, later in pairwise(receiver.times_s)]
    assert gaps_s == pytest.approx([1 / FPS] * len(gaps_s), abs=2e-3)


@pytest.mark.parametrize(
    ("url", "container", "options"),
    [
        ("rtmp://127.0.0.1:{port}/live/key", "flv", {"listen": "1"}),
        ("udp://127.0.0.1:{port}", "mpegts", {}),
        ("tcp://127.0.0.1:{port}", "mpegts", {"listen": "1"}),
    ],
)
def test_a_receiver_gets_size_rate_and_growing_times(
    url: str, container: str, options: dict[str, str], port: int, receivers: list[Receiver]
) -> None:
    place = url.format(port=port)
    receivers.append(Receiver(place, container, **options))
    sender = Sender(place)

    def step() -> bool:
        sender.write()
        return len(receivers[0].pictures) >= NUM_WANTED

    until(step)
    check(receivers[0])
    assert sender.sink is not None
    sender.sink.abort()


def test_one_who_listens_is_asked_by_its_reader(port: int, receivers: list[Receiver]) -> None:
    """tcp://...?listen: no picture waits for a reader, and the reader may come late."""
    plan = plan_sink(f"tcp://127.0.0.1:{port}?listen", size=SIZE, fps=FPS)
    assert plan.waits_for_reader
    clock = MonotonicClock()
    outputs = Outputs(
        [f"tcp://127.0.0.1:{port}?listen"], size=SIZE, fps=FPS, clock=clock, metrics=Metrics(clock)
    )
    numbers = iter(range(100_000))

    def step() -> bool:
        number = next(numbers)
        outputs.put([Frame(moving_picture(number, SIZE), number / FPS, clock.now())])
        if number % 60 == 59 and not (receivers and receivers[-1].pictures):
            receivers.append(Receiver(f"tcp://127.0.0.1:{port}", "mpegts"))
        return any(len(receiver.pictures) >= 10 for receiver in receivers)

    until(step)
    outputs.abort()


def test_a_receiver_that_is_killed_and_comes_back_costs_the_film_beside_it_nothing(
    port: int, receivers: list[Receiver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "SETTLED_S", 0.5)
    clock = MonotonicClock()
    url, film = f"tcp://127.0.0.1:{port}", tmp_path / "film.mp4"
    receivers.append(Receiver(url, "mpegts", listen="1"))

    def opened() -> Outputs | None:
        try:
            return Outputs(
                [str(film), url], size=SIZE, fps=FPS, clock=clock, metrics=Metrics(clock)
            )
        except SinkError:
            return None

    found: list[Outputs] = []
    until(lambda: found.extend(filter(None, [opened()])) or found)
    outputs = found[0]
    num_put = 0

    def step() -> bool:
        nonlocal num_put
        assert outputs.put([Frame(moving_picture(num_put, SIZE), num_put / FPS, clock.now())])
        num_put += 1
        return len(receivers[-1].pictures) >= 10

    until(step)
    receivers[0].kill()
    receivers.append(Receiver(url, "mpegts", listen="1"))
    stats = outputs.stats[url]
    until(lambda: step() and stats.reopened.value)
    check(receivers[1])
    outputs.finish()
    assert stats.failures.value >= 1
    assert stats.reopened.value >= 1
    assert stats.lost.value > 0
    assert outputs.stats[str(film)].lost.value == 0
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == num_put


def test_a_playlist_and_its_pieces_can_be_played(tmp_path: Path) -> None:
    plan = plan_sink(str(tmp_path / "live.m3u8"), size=SIZE, fps=FPS)
    assert plan.pace is Pace.CONSTANT
    sink = plan.open()
    for index in range(90):
        sink.write(Frame(moving_picture(index, SIZE), index / FPS, 0.0))
    sink.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["live-00000.ts", "live-00001.ts", "live.m3u8"]
    with av.open(str(tmp_path / "live.m3u8")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 90
    assert (frames[0].width, frames[0].height) == (SIZE.width, SIZE.height)
    with pytest.raises(SinkError, match=r"there is no folder .*missing; create it"):
        plan_sink(str(tmp_path / "missing" / "live.m3u8"), size=SIZE, fps=FPS).open()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the receiver is the ffmpeg program")
@pytest.mark.parametrize(
    ("url", "listen"),
    [
        ("srt://127.0.0.1:{port}", ("-i", "{url}?mode=listener")),
        ("rtsp://127.0.0.1:{port}/live", ("-rtsp_flags", "listen", "-i", "{url}")),
    ],
)
def test_the_ffmpeg_program_receives_what_pyav_cannot(
    url: str, listen: tuple[str, ...], port: int, tmp_path: Path
) -> None:
    film, place = tmp_path / "film.mkv", url.format(port=port)
    where = [word.format(url=place) for word in listen]
    only = ("-frames:v", str(NUM_WANTED), "-c", "copy")
    receiver = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-nostdin", *where, *only, str(film)], stderr=subprocess.DEVNULL
    )
    sender = Sender(place)

    def step() -> bool:
        try:
            sender.write()
        except SinkError:
            sender.sink = None
        return receiver.poll() is not None

    try:
        until(step)
    finally:
        receiver.kill()
        receiver.wait()
    assert receiver.returncode == 0
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == NUM_WANTED
    if sender.sink is not None:
        sender.sink.abort()


def test_srt_without_the_ffmpeg_program_says_what_to_install(
    port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    target = network_target(f"srt://127.0.0.1:{port}", "srt", SIZE, FPS)
    with pytest.raises(
        SinkError, match="srt is not in this PyAV and there is no ffmpeg program; install ffmpeg"
    ):
        NetworkSink(target)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("rtmp:", "names no host; write rtmp://127.0.0.1:5000"),
        ("udp://127.0.0.1", "names no port; write udp://127.0.0.1:5000"),
        ("rtmp://127.0.0.1", "names no stream; write rtmp://127.0.0.1/live/name"),
        ("tcp://127.0.0.1:99999", "Port out of range"),
        ("srt://", "names no host"),
    ],
)
def test_an_address_that_cannot_be_is_told_before_anything_is_opened(
    url: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_sink(url, size=SIZE, fps=FPS)


NEVER_READS = [sys.executable, "-c", "import threading; threading.Event().wait()"]


def test_a_program_that_takes_nothing_is_killed_in_time() -> None:
    child = Child("x", NEVER_READS, says_ready=False, open_timeout_s=9.0, timeout_s=0.3)
    with pytest.raises(SinkError, match=r"x does not take the pictures \(for 0\.3 s\)"):
        child.send(bytes(10_000_000))
    child.kill()


def test_a_program_that_never_connects_is_killed_in_time() -> None:
    with pytest.raises(SinkError, match="x does not take the pictures"):
        Child("x", NEVER_READS, says_ready=True, open_timeout_s=0.3, timeout_s=9.0)


def test_a_program_says_why_it_ends() -> None:
    def child(script: str, *, says_ready: bool = False) -> Child:
        command = [sys.executable, "-c", script]
        return Child("x", command, says_ready=says_ready, open_timeout_s=30.0, timeout_s=30.0)

    with pytest.raises(SinkError, match=r"x: no such server$"):
        child("print('a word'); print('no such server'); exit(1)", says_ready=True)
    with pytest.raises(SinkError, match=r"x: exit code 7$"):
        child("exit(7)").finish()
    child("import sys; sys.stdin.read()").finish()
    with pytest.raises(SinkClosed):
        child("exit(0)").send(bytes(10_000_000))
    with pytest.raises(SinkError, match="x: cannot start /nowhere: No such file"):
        Child("x", ["/nowhere"], says_ready=False, open_timeout_s=1.0, timeout_s=1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="where processes are listed in /proc")
def test_no_process_is_left_behind(port: int) -> None:
    before = set(os.listdir("/proc"))
    sink = NetworkSink(network_target(f"udp://127.0.0.1:{port}", "udp", SIZE, FPS))
    sink.write(Frame(moving_picture(0, SIZE), 0.0, 0.0))
    assert sink._child._process.poll() is None
    number = str(sink._child._process.pid)
    sink.close()
    assert number not in before
    assert number not in os.listdir("/proc")
