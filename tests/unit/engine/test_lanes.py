"""Encode, denoise, decode and copy on lanes of their own: nothing is used too soon or too late.

Legend: F latent frames, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from streamgen.clock import SimulatedClock
from streamgen.engine.cuda_lanes import CudaLanes
from streamgen.engine.lanes import InOrder, Lane
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.serving import build
from streamgen.serving.host import Host
from streamgen.serving.stream import Stream
from streamgen.types import PictureSize
from tests.lane_watch import DENOISE, RaceError, WatchedLanes

SIZE = PictureSize(32, 64)
SMALL = ("picture.height=32", "picture.width=64", "cache.ring=2")
PRESETS = ["tiny-cpu", "tiny-cpu-v2v"]
NUM_FRAMES = 12


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> WatchedLanes:
    """Lanes that every pipeline of this test gets."""
    lanes = WatchedLanes()
    monkeypatch.setattr(build, "settle_lanes", lambda *_, **__: lanes)
    return lanes


def open_stream(host: Host, seed: int = 0) -> Stream:
    source = None
    if host.takes_video:
        source = SyntheticSource(SIZE, fps=16.0, clock=SimulatedClock(), num_frames=NUM_FRAMES)
    return Stream(host, prompt="a red ball", source=source, seed=seed, max_frames=NUM_FRAMES)


def pictures(host: Host) -> np.ndarray:
    with open_stream(host) as stream:
        return np.stack([frame.pixels for frame in stream])


@pytest.mark.parametrize("preset", PRESETS)
def test_lanes_take_nothing_from_one_another_too_soon(preset: str, watched: WatchedLanes) -> None:
    """Two streams on one engine: every operator's inputs are there, taken, and still whole."""
    with Host(preset, overrides=SMALL) as host, watched:
        streams = [open_stream(host, seed) for seed in (1, 2)]
        for _ in range(NUM_FRAMES):
            for stream in streams:
                next(stream)
    lanes = {lane.value for lane in Lane} - (set() if host.takes_video else {"encode"})
    assert watched.counts.keys() == lanes | {DENOISE}
    assert min(watched.counts.values()) >= NUM_FRAMES // 4


@pytest.mark.parametrize("preset", PRESETS)
def test_a_picture_is_the_same_however_late_it_arrives(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Host(preset, overrides=SMALL) as host:
        expected = pictures(host)
    monkeypatch.setattr(build, "settle_lanes", lambda *_, **__: WatchedLanes())
    with Host(preset, overrides=SMALL) as host:
        assert np.array_equal(pictures(host), expected)


def test_the_host_waits_for_no_work_newer_than_the_last_tick(watched: WatchedLanes) -> None:
    """While there is something to do: the batch before the newest, once a tick, and no clip."""
    with Host("tiny-cpu", overrides=SMALL) as host:
        host.open("a red ball")
        for _ in range(12):
            assert host.tick()
        denoising = [behind for lane, behind, _ in watched.waits if lane == DENOISE]
        assert len(denoising) >= 6
        assert min(denoising) >= 1
        assert not [lane for lane, _, _ in watched.waits if lane != DENOISE]


def test_clips_are_handed_over_in_order_once_they_have_arrived(watched: WatchedLanes) -> None:
    with Host("tiny-cpu", overrides=(*SMALL, "denoise.timesteps=[1000]")) as host:
        opened = host.open("a red ball")
        session = opened.session
        while len(session.arriving) < 2:
            host.tick()
        assert not session.clips
        arriving = [arrival.clip for arrival in session.arriving]
        watched.let_pass()
        host.tick()
        assert list(session.clips)[:2] == arriving
        assert host.pipeline.engine.latency.decode.num_observed == 2
        assert host.pipeline.engine.latency.decode.predict(4) == pytest.approx(0.25)


def test_no_more_clips_arrive_than_may_wait(watched: WatchedLanes) -> None:
    """A device that decodes slower than it denoises is not given ever more to decode."""
    with Host("tiny-cpu", overrides=(*SMALL, "engine.output_queue_clips=2")) as host:
        session = host.open("a red ball").session
        for _ in range(24):
            host.tick()
        assert len(session.clips) + len(session.arriving) <= 4


def test_encoding_is_learnt_when_the_device_has_done_it(watched: WatchedLanes) -> None:
    with Host("tiny-cpu-v2v", overrides=SMALL) as host, open_stream(host) as stream:
        learnt = host.pipeline.engine.latency.encode
        while not stream._opened.session.next_chunk:
            host.tick()
        assert learnt.num_observed == 0
        watched.let_pass()
        host.tick()
        assert learnt.num_observed >= 1
        assert learnt.predict(4) == pytest.approx(0.25)


@pytest.fixture
def lanes() -> Iterator[WatchedLanes]:
    with WatchedLanes() as watched:
        yield watched


def test_the_watch_sees_who_does_not_wait(lanes: WatchedLanes) -> None:
    made = torch.ones(4) + 1
    mark = lanes.mark()
    made += 1  # behind the mark
    with lanes.on(Lane.DECODE):
        lanes.take(mark, made)
        with pytest.raises(RaceError, match="decode reads too soon after denoise"):
            made.sum()


def test_the_watch_sees_who_takes_nothing(lanes: WatchedLanes) -> None:
    made = torch.ones(4) + 1
    mark = lanes.mark()
    with lanes.on(Lane.COPY):
        lanes.take(mark)
        with pytest.raises(RaceError, match="copy has not taken what belongs to denoise"):
            made.sum()


def test_the_watch_sees_who_overwrites_what_is_still_read(lanes: WatchedLanes) -> None:
    made = torch.ones(4) + 1
    mark = lanes.mark()
    with lanes.on(Lane.DECODE):
        lanes.take(mark, made)
        made.sum()
        read = lanes.mark()
    with pytest.raises(RaceError, match="denoise writes too soon after decode"):
        made.zero_()
    lanes.take(read)
    made.zero_()


def test_work_of_a_cpu_is_over_when_it_has_been_asked_for() -> None:
    clock = SimulatedClock()
    lanes = InOrder(clock)
    with lanes.on(Lane.DECODE), lanes.timed() as stretch:
        assert stretch.seconds() is None
        clock.advance_to(1.5)
    assert stretch.seconds() == 1.5
    assert stretch.has_passed()
    assert lanes.mark().has_passed()
    pixels = torch.zeros(3)
    assert lanes.to_host(pixels) is pixels


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
BUSY_CYCLES = 200_000_000  # a tenth of a second or so


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_is_timed_by_its_own_clock() -> None:
    """Asking for work takes the host no time; the stretch knows what it took once it is over."""
    with CudaLanes(torch.device("cuda")).timed() as stretch:
        torch.cuda._sleep(BUSY_CYCLES)
    assert stretch.seconds() is None
    stretch.wait()
    took_s = stretch.seconds()
    assert took_s is not None
    assert took_s > 0.01


@pytest.mark.gpu
@needs_gpu
def test_lanes_of_a_gpu_run_beside_one_another() -> None:
    lanes = CudaLanes(torch.device("cuda"))
    torch.cuda._sleep(BUSY_CYCLES)
    denoising = lanes.mark()
    with lanes.on(Lane.DECODE):
        torch.ones(4, device="cuda").sum()
        lanes.mark().wait()
    assert not denoising.has_passed()
    with lanes.on(Lane.COPY):
        lanes.take(denoising)
        lanes.mark().wait()
    assert denoising.has_passed()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("preset", PRESETS)
def test_pictures_are_the_same_with_and_without_overlap(preset: str) -> None:
    """Kernels of one lane and those of several are the same; what a race spoils differs widely."""
    settings = (*SMALL, 'model.device="cuda"', 'model.dtype="float32"')
    shown = []
    for overlap in ("auto", "off"):
        with Host(preset, overrides=(*settings, f'speed.overlap="{overlap}"')) as host:
            shown.append(pictures(host).astype(int))
    assert np.abs(shown[0] - shown[1]).max() <= 1
