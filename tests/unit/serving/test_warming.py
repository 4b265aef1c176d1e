"""Before the first session everything is recorded that streams come back to; a CPU waits for
nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from streamgen import Host, Stream
from streamgen.engine.forward import CallAgain, Replayed
from streamgen.errors import CapacityError
from streamgen.serving import warming
from streamgen.serving.warming import warm_engine

SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1", "engine.sessions=2")
FRAMES = 4 * 14  # of 14 chunks: windows are full, and what comes a third time has come


class Counting(CallAgain):
    """A Recorder that counts."""

    def __init__(self) -> None:
        self.num_records = 0

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.num_records += 1
        return super().record(function)


@pytest.mark.parametrize("preset", ["tiny-cpu", "tiny-cpu-v2v"])
def test_no_stream_that_comes_alone_or_with_others_records_anything(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every number of streams up to engine.sessions, from their first chunk on."""
    recorder = Counting()
    monkeypatch.setattr(
        "streamgen.serving.build.settle_runner", lambda *_, **__: Replayed(recorder)
    )
    monkeypatch.setattr(warming, "is_warmed", lambda pipeline: True)
    told: list[str] = []
    with Host(preset, overrides=SMALL) as host:
        warm_engine(host.pipeline, told.append)
        recorded = recorder.num_records
        assert recorded > 0
        assert not host.pipeline.engine.sessions
        assert told[:2] == ["warming up, 1 of 2: 2 streams at once", "warming up, 2 of 2: 1 stream"]
        assert told[2].startswith("warmed up in ")
        for count in (1, 2, 1):
            warming.run_streams(
                host.pipeline, warming.LatencyModel(), num_streams=count, num_chunks=14
            )
        assert recorder.num_records == recorded


def test_a_warmed_stream_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def frames_of(host: Host) -> list[bytes]:
        with Stream(host, prompt="a red ball", max_frames=FRAMES) as stream:
            return [frame.pixels.tobytes() for frame in stream]

    with Host("tiny-cpu", overrides=SMALL) as cold, Host("tiny-cpu", overrides=SMALL) as warm:
        monkeypatch.setattr(warming, "is_warmed", lambda pipeline: True)
        warm_engine(warm.pipeline, lambda line: None)
        assert frames_of(warm) == frames_of(cold)


def test_a_model_on_a_cpu_starts_at_once_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("streams were run")

    monkeypatch.setattr(warming, "run_streams", never)
    told: list[str] = []
    with Host("tiny-cpu", overrides=SMALL) as host:
        warm_engine(host.pipeline, told.append)
    assert told == []


def test_a_host_that_has_no_memory_to_warm_up_is_told_in_one_line_and_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 40 GiB")

    monkeypatch.setattr(warming, "is_warmed", lambda pipeline: True)
    monkeypatch.setattr(warming, "run_streams", full)
    closed: list[bool] = []
    monkeypatch.setattr(Host, "close", lambda self: closed.append(True))
    with pytest.raises(CapacityError, match=r"lower engine\.sessions or the picture's size"):
        warming.warmed_host(lambda: Host("tiny-cpu", overrides=SMALL), lambda line: None)
    assert closed == [True]
