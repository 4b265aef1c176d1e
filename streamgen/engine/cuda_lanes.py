"""Lanes as CUDA streams, marks as CUDA events.

The lane of denoising is the stream that is current outside of all others. PyTorch's allocator
gives freed memory to the stream that it came from, so a tensor that another stream uses is recorded
there (`Tensor.record_stream`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from streamgen.engine.lanes import Lane, Mark, Stretch

SMALL_FIRST = -1  # priority of codec and copies: they are short, and somebody waits for each


class CudaMark:
    """An event on a stream."""

    def __init__(self, event: torch.cuda.Event) -> None:
        self.event = event

    def has_passed(self) -> bool:
        return self.event.query()

    def wait(self) -> None:
        self.event.synchronize()


class CudaStretch(CudaMark):
    """Between two events on one stream."""

    def __init__(self) -> None:
        super().__init__(torch.cuda.Event(enable_timing=True))
        self._began = torch.cuda.Event(enable_timing=True)
        self._began.record()
        self._has_ended = False

    def end(self) -> None:
        self.event.record()
        self._has_ended = True

    def seconds(self) -> float | None:
        if not self._has_ended or not self.event.query():
            return None
        return self._began.elapsed_time(self.event) / 1e3


class CudaLanes:
    """A stream a lane, on one device; made when the model's weights are there."""

    def __init__(self, device: torch.device) -> None:
        self._streams = {lane: torch.cuda.Stream(device, priority=SMALL_FIRST) for lane in Lane}
        for cuda_stream in self._streams.values():  # weights may still be on their way
            cuda_stream.wait_stream(torch.cuda.current_stream(device))

    @contextmanager
    def on(self, lane: Lane) -> Iterator[None]:
        with torch.cuda.stream(self._streams[lane]):
            yield

    def mark(self) -> Mark:
        event = torch.cuda.Event()
        event.record()
        return CudaMark(event)

    def take(self, mark: Mark, *tensors: Tensor) -> None:
        assert isinstance(mark, CudaMark), "a mark of other lanes"
        here = torch.cuda.current_stream()
        here.wait_event(mark.event)
        for tensor in tensors:
            tensor.record_stream(here)

    @contextmanager
    def timed(self) -> Iterator[Stretch]:
        stretch = CudaStretch()
        yield stretch
        stretch.end()

    def to_host(self, tensor: Tensor) -> Tensor:
        on_host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        on_host.copy_(tensor, non_blocking=True)
        return on_host


class CudaInOrder(CudaLanes):
    """One stream for everything, with the same marks and times: for comparison."""

    def __init__(self, device: torch.device) -> None:
        """Nothing beside the stream that is current."""
        here = torch.cuda.current_stream(device)
        self._streams = dict.fromkeys(Lane, here)
