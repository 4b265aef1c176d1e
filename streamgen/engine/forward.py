"""How a stage's forward is carried out: as it is written, or replayed from fixed buffers.

A replayed forward is recorded once for each layout of its inputs (shapes, and every number that is
not a tensor); then its inputs are copied to where the recording reads them. Knows no devices: a
Recorder does, and `engine.compile` has the one for CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

from torch import Tensor

from streamgen.cache.kv import CachePlan
from streamgen.cache.recent import Recent
from streamgen.engine.effort import WHOLE, Effort
from streamgen.models.base import Conditioning

NUM_RECORDINGS = 32  # kept: one a mix of rows, and memory each
RUNS_BEFORE_ANOTHER = 200  # where one recording must go for another: making it takes long, and
#                            layouts of many sessions would push each other out at every tick
SEEN_BEFORE_RECORDING = 2  # a layout that came only once or twice runs as it is written


@dataclass(frozen=True, slots=True)
class StageInputs:
    """Everything that one forward of a stage reads, but weights and the cache."""

    incoming: Tensor
    """Another one at each forward; all else is never written after it was made."""
    cond: Conditioning
    plan: CachePlan
    effort: Effort = WHOLE


Forward = Callable[[StageInputs], Tensor]


class ForwardRunner(Protocol):
    def run(self, forward: Forward, inputs: StageInputs) -> Tensor: ...


class AsWritten:
    """Calls the forward."""

    def run(self, forward: Forward, inputs: StageInputs) -> Tensor:
        return forward(inputs)


class Recorder(Protocol):
    """Records what a function does to the device, and hands back what does the same again."""

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Returns the replay, and the tensor that every replay writes its result to."""
        ...


@dataclass(slots=True)
class Recording:
    buffers: list[Tensor]
    """What the recording reads, in the order of `flatten`."""
    sources: list[Tensor]
    """What was last copied there; kept, so that an address means what it meant."""
    replay: Callable[[], None]
    result: Tensor


class Replayed:
    """Records a forward for every layout that comes again; addresses of the cache are fixed."""

    def __init__(
        self,
        recorder: Recorder,
        capacity: int = NUM_RECORDINGS,
        seen_before: int = SEEN_BEFORE_RECORDING,
    ) -> None:
        """`seen_before` times a layout runs as it is written before it is recorded."""
        self._recorder = recorder
        self._seen_before = seen_before
        self._capacity = capacity
        self._runs_since = 0  # the newest recording
        self._recordings: Recent[Hashable, Recording] = Recent(capacity)
        self._seen: Recent[Hashable, int] = Recent(4 * capacity)
        self._flattener = Flattener()

    @property
    def num_recordings(self) -> int:
        return len(self._recordings)

    def run(self, forward: Forward, inputs: StageInputs) -> Tensor:
        layout, tensors = self._flattener.flatten(inputs)
        recording = self._recordings.get(layout)
        self._runs_since += 1
        if recording is None:
            count = self._seen.get(layout) or 0
            self._seen.put(layout, count + 1)
            is_full = len(self._recordings) == self._capacity
            if count < self._seen_before or (is_full and self._runs_since < RUNS_BEFORE_ANOTHER):
                return forward(inputs)
            recording = self._record(forward, inputs, tensors)
            self._recordings.put(layout, recording)
            self._runs_since = 0
        _refill(recording, tensors)
        recording.replay()
        return recording.result.clone()

    def _record(self, forward: Forward, inputs: StageInputs, tensors: list[Tensor]) -> Recording:
        buffers = [tensor.clone() for tensor in tensors]
        fixed: StageInputs = rebuild(inputs, iter(buffers))
        replay, result = self._recorder.record(lambda: forward(fixed))
        return Recording(buffers, list(tensors), replay, result)


def _refill(recording: Recording, tensors: list[Tensor]) -> None:
    """Copy what differs from last time; the first tensor is the incoming one, which always does."""
    targets, sources = [recording.buffers[0]], [tensors[0]]
    for index in range(1, len(tensors)):
        before, now = recording.sources[index], tensors[index]
        if before is not now and not _is_same_memory(before, now):
            targets.append(recording.buffers[index])
            sources.append(now)
            recording.sources[index] = now
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source, non_blocking=True)


def _is_same_memory(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.stride() == other.stride()


class Flattener:
    """`flatten` for the inputs of one tick after another: what is the same object as at the tick
    before is not looked into again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Hashable, list[Tensor]]] = {}

    def flatten(self, inputs: StageInputs) -> tuple[Hashable, list[Tensor]]:
        tensors: list[Tensor] = []
        cond = inputs.cond
        layout = [flatten(inputs.incoming, tensors)]
        for name, value in (
            ("time", cond.time_BFD),
            ("modulation", cond.modulation_BF6D),
            ("text", cond.text),
            ("parts", cond.parts),
            ("plan", inputs.plan),
            ("effort", inputs.effort),
        ):
            known = self._known.get(name)
            if known is None or known[0] is not value:
                own: list[Tensor] = []
                known = self._known[name] = (value, flatten(value, own), own)
            layout.append(known[1])
            tensors += known[2]
        return tuple(layout), tensors


def flatten(value: Any, tensors: list[Tensor]) -> Hashable:
    """Append every tensor inside `value`, and return what is left: two values with equal rests and
    tensors of the same shapes can stand for each other in a recording."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return tuple(value.shape), value.dtype
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), tuple(flatten(getattr(value, f.name), tensors) for f in fields(value))
    if isinstance(value, list | tuple):
        return tuple(flatten(item, tensors) for item in value)
    if isinstance(value, dict):
        return tuple((key, flatten(item, tensors)) for key, item in value.items())
    if isinstance(value, slice):
        return value.start, value.stop, value.step
    return value


def rebuild(value: Any, tensors: Any) -> Any:
    """`value` with its tensors replaced, in the order of `flatten`, by those of an iterator."""
    if isinstance(value, Tensor):
        return next(tensors)
    if is_dataclass(value) and not isinstance(value, type):
        made = object.__new__(type(value))
        for field in fields(value):
            object.__setattr__(made, field.name, rebuild(getattr(value, field.name), tensors))
        return made
    if isinstance(value, list | tuple):
        return tuple(rebuild(item, tensors) for item in value)
    if isinstance(value, dict):
        return {key: rebuild(item, tensors) for key, item in value.items()}
    return value


class CallAgain:
    """A Recorder that records nothing: a replay calls the function. For tests of what is around."""

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        result = function().clone()

        def replay() -> None:
            result.copy_(function())

        return replay, result
