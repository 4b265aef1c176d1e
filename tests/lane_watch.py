"""Lanes that run nothing beside anything, and find what would go wrong if they did.

Every operator is seen at the dispatcher, with the lane that it was asked for on. Of each piece of
memory is known where it was written and read last; of each lane, how far it has waited for each
other one. So an operator is refused

- that reads what another lane wrote, without having waited for that;
- that writes what another lane may still be reading;
- that uses memory of another lane without having taken it: that lane could give it away.

Memory is kept for as long as the watch lives, so that an address means one thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from streamgen.engine.lanes import Lane, Mark, Stretch

DENOISE = "denoise"


class RaceError(AssertionError):
    """Two lanes use the same memory in no order."""


@dataclass
class Memory:
    """Who made a piece of memory, and who used it last."""

    home: str
    writer: str
    written: int
    readers: dict[str, int] = field(default_factory=dict)
    takers: set[str] = field(default_factory=set)


@dataclass
class WatchedMark:
    """So many operators of a lane, and of those that it had waited for."""

    lanes: WatchedLanes
    lane: str
    seen: dict[str, int]
    index: int
    """Among all marks and ends of stretches of its lane."""

    def has_passed(self) -> bool:
        return self.index <= self.lanes.passed.get(self.lane, 0)

    def wait(self) -> None:
        newest = self.lanes.num_marks[self.lane]
        self.lanes.waits.append((self.lane, newest - self.index, self.has_passed()))
        self.lanes.passed[self.lane] = max(self.index, self.lanes.passed.get(self.lane, 0))


class WatchedStretch:
    def __init__(self, lanes: WatchedLanes) -> None:
        self._lanes = lanes
        self._end: WatchedMark | None = None

    def end(self) -> None:
        self._end = self._lanes.mark()

    def has_passed(self) -> bool:
        return self._end is not None and self._end.has_passed()

    def wait(self) -> None:
        assert self._end is not None
        self._end.wait()

    def seconds(self) -> float | None:
        return 0.25 if self.has_passed() else None


class WatchedLanes(TorchDispatchMode):
    """Lanes, and the watch over them while it is entered.

    Nothing has passed before somebody waits for it or `let_pass` is called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lane = DENOISE
        self.counts: dict[str, int] = {}
        """Operators that each lane was asked for."""
        self.num_marks: dict[str, int] = {}
        self.passed: dict[str, int] = {}
        self.waits: list[tuple[str, int, bool]] = []
        """Of the host: lane, marks of that lane behind the one waited for, whether in vain."""
        self._seen: dict[str, dict[str, int]] = {}
        self._memory: dict[int, Memory] = {}
        self._kept: list[Any] = []

    @contextmanager
    def on(self, lane: Lane) -> Iterator[None]:
        before, self.lane = self.lane, lane.value
        yield
        self.lane = before

    def mark(self) -> WatchedMark:
        lane = self.lane
        self.num_marks[lane] = self.num_marks.get(lane, 0) + 1
        seen = self._seen.get(lane, {}) | {lane: self.counts.get(lane, 0)}
        return WatchedMark(self, lane, seen, self.num_marks[lane])

    def take(self, mark: Mark, *tensors: Tensor) -> None:
        assert isinstance(mark, WatchedMark)
        seen = self._seen.setdefault(self.lane, {})
        for lane, count in mark.seen.items():
            seen[lane] = max(count, seen.get(lane, 0))
        for tensor in tensors:
            memory = self._memory.get(_address(tensor))
            if memory is not None:
                memory.takers.add(self.lane)

    @contextmanager
    def timed(self) -> Iterator[Stretch]:
        stretch = WatchedStretch(self)
        yield stretch
        stretch.end()

    def to_host(self, tensor: Tensor) -> Tensor:
        on_host = tensor.clone()
        self._memory.pop(_address(on_host), None)  # the host's: no lane can give it away
        return on_host

    def let_pass(self) -> None:
        """The device has done all that it was asked for."""
        self.passed = dict(self.num_marks)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.counts[self.lane] = self.counts.get(self.lane, 0) + 1
        written = {
            _address(one)
            for place, argument in enumerate(function._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
            for one in _tensors(args[place] if place < len(args) else kwargs.get(argument.name))
        }
        before = {_address(one) for one in _tensors([args, kwargs])}
        for address in before:
            self._use(address, writes=address in written, by=str(function))
        result = function(*args, **kwargs)
        for one in _tensors(result):
            address = _address(one)
            if address not in before:
                self._kept.append(one.untyped_storage())
                self._memory[address] = Memory(self.lane, self.lane, self.counts[self.lane])
        return result

    def _use(self, address: int, *, writes: bool, by: str) -> None:
        memory, lane = self._memory.get(address), self.lane
        if memory is None:  # weights, and what was there before the watch
            return
        if lane != memory.home and lane not in memory.takers:
            raise RaceError(f"{by}: {lane} has not taken what belongs to {memory.home}")
        self._check(memory.writer, memory.written, f"{by}: {lane} reads too soon")
        if writes:
            for reader, count in memory.readers.items():
                self._check(reader, count, f"{by}: {lane} writes too soon")
            memory.writer, memory.written = lane, self.counts[lane]
        memory.readers[lane] = self.counts[lane]

    def _check(self, other: str, count: int, complaint: str) -> None:
        if other != self.lane and self._seen.get(self.lane, {}).get(other, 0) < count:
            raise RaceError(f"{complaint} after {other}")


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [one for item in value for one in _tensors(item)]
    return []
