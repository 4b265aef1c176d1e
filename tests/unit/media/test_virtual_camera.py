"""The virtual camera through the real pyvirtualcam: a backend of ours, and its own Linux one."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgen.clock import SimulatedClock
from streamgen.errors import SinkError
from streamgen.media.outlet import LiveOutlet, OutputStats, Pace, SinkPlan
from streamgen.media.outputs import plan_sink
from streamgen.media.pacing import ConstantRate, Pacer
from streamgen.media.sinks.virtual_camera import VirtualCameraSink
from streamgen.metrics.export import Metrics
from streamgen.types import Frame, PictureSize
from streamgen_apps.cli import main

pyvirtualcam = pytest.importorskip("pyvirtualcam")

SIZE = PictureSize(48, 64)
FPS = 30.0
FIVE_MINUTES_S = 300.0
SHIM = Path(__file__).resolve().parents[2] / "devices" / "fake_v4l2.c"
SENDER = """
import sys
import numpy as np
from streamgen.media.sinks.virtual_camera import VirtualCameraSink
from streamgen.types import Frame, PictureSize
sink = VirtualCameraSink(PictureSize(48, 64), device=sys.argv[1])
assert sink.device == sys.argv[1]
for red in (0, 120, 250):
    sink.write(Frame(np.full((48, 64, 3), (red, 40, 90), np.uint8), 0.0, 0.0))
sink.write(Frame(np.full((48, 24, 3), 200, np.uint8), 0.0, 0.0))
sink.close()
"""


class Device:
    """What a driver would be: keeps the last picture, and when it came."""

    opened: list[Device] = []  # noqa: RUF012 - pyvirtualcam makes the objects and hides them
    clock = SimulatedClock()

    def __init__(
        self, *, width: int, height: int, fps: float, fourcc: int, device: str | None
    ) -> None:
        del fourcc
        self.size = PictureSize(height, width)
        self.fps = fps
        self.times_s: list[float] = []
        self.last = np.zeros((height, width, 3), np.uint8)
        self.num_closed = 0
        self._device = device or "fake camera"
        Device.opened.append(self)

    def send(self, frame: np.ndarray) -> None:
        self.last = frame.reshape(self.size.height, self.size.width, 3).copy()
        self.times_s.append(Device.clock.now())

    def close(self) -> None:
        self.num_closed += 1

    def device(self) -> str:
        return self._device

    def native_fourcc(self) -> None:
        return None


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimulatedClock:
    """pyvirtualcam has one backend, ours; its devices are in Device.opened."""
    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {})
    pyvirtualcam.register_backend("fake", Device)
    Device.opened = []
    Device.clock = SimulatedClock()
    return Device.clock


def test_five_minutes_have_a_jitter_under_five_milliseconds(fake: SimulatedClock) -> None:
    """30 frames/s out of chunks of 4 at 16 frames/s that come up to 80 ms late, are missing for
    three seconds, and take half a second once a minute, when a prompt changes. Who shows them
    wakes up to 4 ms late. One device, opened once."""
    chance = random.Random(5)
    plan = SinkPlan("cam", lambda: VirtualCameraSink(SIZE, fps=FPS), Pace.CONSTANT)
    stats = OutputStats(Metrics(fake), fake, output="cam")
    pacer = Pacer(fake, content_fps=16, max_waiting=32)
    outlet = LiveOutlet(plan, plan.open(), ConstantRate(pacer, fake, fps=FPS), fake, stats)
    coming_s = [
        0.25 * n + 0.08 * chance.random() + (0.5 if n % 240 == 239 else 0.0)
        for n in range(int(FIVE_MINUTES_S / 0.25))
        if not 100.0 < 0.25 * n < 103.0
    ]
    coming_s.sort()
    shades = 0
    while fake.now() < FIVE_MINUTES_S:
        due_s = outlet.due_s
        if coming_s and (due_s is None or coming_s[0] <= due_s):
            fake.advance_to(coming_s.pop(0))
            pictures = [np.full((48, 64, 3), (shades + n) % 256, np.uint8) for n in range(4)]
            outlet.add([Frame(pixels, 0.0, fake.now()) for pixels in pictures])
            shades += 4
            continue
        assert due_s is not None
        fake.advance_to(due_s + 0.004 * chance.random())
        outlet.turn()
    (device,) = Device.opened
    assert device.fps == FPS
    gaps_s = np.array([b - a for a, b in pairwise(device.times_s)])
    assert np.quantile(np.abs(gaps_s - 1 / FPS), 0.99) < 0.005
    assert len(device.times_s) == pytest.approx(FIVE_MINUTES_S * FPS, abs=5)
    assert device.num_closed == 0
    outlet.close()
    assert device.num_closed == 1
    assert stats.repeated.value > 0


def test_what_was_sent_is_what_was_meant(fake: SimulatedClock) -> None:
    """RGB as it is; a picture of another size gets bars, and the format stays."""
    sink = VirtualCameraSink(SIZE, fps=FPS)
    (device,) = Device.opened
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    sink.write(Frame(pixels, 0.0, 0.0))
    np.testing.assert_array_equal(device.last, pixels)
    sink.write(Frame(np.full((48, 32, 3), 200, np.uint8), 0.0, 0.0))
    assert device.last[:, :16].max() == 0
    assert device.last[:, 16:48].min() == 200
    assert device.last[:, 48:].max() == 0
    sink.write(Frame(pixels[::-1], 0.0, 0.0))
    np.testing.assert_array_equal(device.last, pixels[::-1])
    sink.close()
    assert len(Device.opened) == 1


def test_the_words_after_the_colon_choose_device_size_and_rate(fake: SimulatedClock) -> None:
    plan = plan_sink("virtualcam:/dev/video7,size=640x480,fps=25", size=SIZE, fps=16)
    assert (plan.name, plan.pace, plan.fps) == ("virtualcam:/dev/video7", Pace.CONSTANT, 25)
    sink = plan.open()
    (device,) = Device.opened
    assert (device.size, device.device(), device.fps) == (PictureSize(480, 640), "/dev/video7", 25)
    sink.close()
    odd = plan_sink("virtualcam:", size=PictureSize(47, 63), fps=16)
    odd.open().close()
    assert Device.opened[1].size == SIZE
    assert Device.opened[1].fps == FPS


@pytest.mark.skipif(sys.platform != "linux", reason="the driver's name is Linux's")
@pytest.mark.parametrize("name", ["virtualcam:", "virtualcam:/dev/video99"])
def test_a_missing_driver_ends_the_command_with_its_remedy(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if Path("/dev/video99").exists() or list(Path("/dev").glob("video*")):
        pytest.skip("this machine has video devices")
    small = ("--set", "picture.height=64", "--set", "picture.width=64")
    assert main(["run", "a red ball", "-o", name, *small]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "sudo modprobe v4l2loopback" in err


def test_a_device_that_breaks_is_a_sink_error(fake: SimulatedClock) -> None:
    sink = VirtualCameraSink(SIZE, fps=FPS)

    def unplugged(frame: np.ndarray) -> None:
        raise RuntimeError("device lost\nand more")

    Device.opened[0].send = unplugged  # type: ignore[method-assign]
    with pytest.raises(SinkError, match=r"the virtual camera failed: device lost$"):
        sink.write(Frame(np.zeros((48, 64, 3), np.uint8), 0.0, 0.0))


@pytest.mark.skipif(sys.platform != "linux", reason="v4l2loopback is Linux's")
@pytest.mark.skipif(shutil.which("cc") is None, reason="the shim needs a C compiler")
def test_the_native_linux_backend_writes_the_pictures_that_were_meant(tmp_path: Path) -> None:
    """pyvirtualcam's own C++ backend, on a file that a preloaded library makes look like v4l2."""
    library, device, log = tmp_path / "shim.so", tmp_path / "video0", tmp_path / "log"
    device.touch()
    compiled = ["cc", "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"]
    subprocess.run(compiled, check=True, timeout=60)
    env = os.environ | {
        "LD_PRELOAD": str(library),
        "FAKE_V4L2_PATH": str(device),
        "FAKE_V4L2_LOG": str(log),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SENDER, str(device)],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert log.read_text().split() == ["64x48", "YU12"]
    planes = np.fromfile(device, np.uint8).reshape(4, 48 * 3 // 2, 64)
    for i420, red in zip(planes, (0, 120, 250), strict=False):
        seen = cv2.cvtColor(i420, cv2.COLOR_YUV2RGB_I420)
        assert np.abs(seen.astype(int) - (red, 40, 90)).max() <= 8
    barred = cv2.cvtColor(planes[3], cv2.COLOR_YUV2RGB_I420)
    assert barred[:, :16].max() < 8
    assert barred[:, 24:40].min() > 190
