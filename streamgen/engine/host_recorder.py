"""A forward on a CPU as the list of arithmetic calls that it comes down to, over fixed memory.

What CUDA graphs are to a GPU. A small model on a CPU spends more time between operations than in
them: in modules, views, and memory that is taken and given back. When a forward comes again with
the same layout, views and results lie where they lay, so only the arithmetic is called again, each
call writing into the tensor that it made the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from streamgen.engine.host_memory import Arena, Lifetime

WHOLE = frozenset({"layer_norm", "scaled_dot_product_attention"})
"""Compositions that torch has one fast entry for; others are taken apart."""
FACTORIES = frozenset({"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"})
"""Memory whose content is nobody's: it need not be made again."""


class HostRecorder:
    """A Recorder for what runs on a CPU and reads no tensor's content on the host.

    All its recordings work in the same memory, so one may be replayed at a time, and what a replay
    gave is good until the next.
    """

    def __init__(self, arena: Arena | None = None) -> None:
        self._arena = arena or Arena()

    @torch.inference_mode()
    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Call the function, which has run before, keeping what it does.

        Raises RuntimeError for an operation whose course depends on what a tensor holds, since a
        replay could not follow it.
        """
        tape = _Tape()
        with tape:
            result = function()
        self._arena.move_in(tape.lifetimes(result))
        calls = tuple(call.run for call in tape.calls)

        @torch.inference_mode()
        def replay() -> None:
            for call in calls:
                call()

        return replay, result


@dataclass(frozen=True, slots=True)
class _Call:
    run: Callable[[], object]
    tensors: tuple[Tensor, ...]
    """What it reads and writes."""


class _Tape(TorchDispatchMode):
    """Sees every operation below autograd, and keeps those that compute."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self._made: dict[int, tuple[int, Tensor]] = {}
        """By the address of memory that was taken: before which call, and what for."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch wraps a mode's method unless this says no, and the wrapper imports its compiler:
        a second or two in the midst of a stream, for nothing."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        nature = _nature(func)
        if nature is Nature.COMPOSED:
            with self:
                return func.decompose(*args, **kwargs)
        if nature is Nature.UNKNOWN:
            raise RuntimeError(f"{func} depends on what a tensor holds; it cannot be replayed")
        made = func(*args, **kwargs)
        if nature is Nature.VIEW:
            return made
        touched = (*_tensors(args), *_tensors(kwargs), *_tensors(made))
        if nature is Nature.IN_PLACE:
            run = partial(_method(func), *args, **kwargs)
            self.calls.append(_Call(run, touched))
            return made
        for tensor in _tensors(made):
            self._made.setdefault(_address(tensor), (len(self.calls), tensor))
        if nature is Nature.COMPUTES:
            self.calls.append(_Call(_made_again(func, args, kwargs, made), touched))
        return made

    def lifetimes(self, result: Tensor) -> list[Lifetime]:
        """Of all memory that was taken, in the order in which it was. Memory that came with the
        arguments, or was taken out of our sight, is not among them."""
        users: dict[int, list[Tensor]] = {address: [] for address in self._made}
        last = {address: first for address, (first, _) in self._made.items()}
        for index, call in enumerate(self.calls):
            for tensor in call.tensors:
                if (address := _address(tensor)) in users:
                    users[address].append(tensor)
                    last[address] = index
        if (address := _address(result)) in users:
            users[address].append(result)
            last[address] = len(self.calls)
        return [
            Lifetime(first, last[address], [tensor, *users[address]])
            for address, (first, tensor) in self._made.items()
        ]


class Nature(Enum):
    """What an operation does, as far as a recording is concerned."""

    COMPOSED = "composed"
    """Of others, which are looked at one by one."""
    VIEW = "view"
    IN_PLACE = "in place"
    FACTORY = "factory"
    """Takes memory and writes nothing."""
    COMPUTES = "computes"
    UNKNOWN = "unknown"
    """Its course depends on what tensors hold."""


@cache
def _nature(func: Any) -> Nature:
    name: str = func.overloadpacket.__name__
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    if name not in WHOLE and func.has_kernel_for_dispatch_key(composite):
        return Nature.COMPOSED
    if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
        return Nature.UNKNOWN
    if func._schema.is_mutable:
        return Nature.IN_PLACE
    if any(one.alias_info is not None for one in func._schema.returns):
        return Nature.VIEW
    return Nature.FACTORY if name in FACTORIES else Nature.COMPUTES


def _method(func: Any) -> Callable[..., Any]:
    """An operation in place: as a method, which is quicker to call, where there is one."""
    name: str = func.overloadpacket.__name__
    return getattr(Tensor, name, func) if name.endswith("_") else func


_takes_out: dict[tuple[Any, int, tuple[str, ...]], bool] = {}
"""Whether an operation can be told where to write, by how it was called; tried once each."""


def _made_again(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any
) -> Callable[[], object]:
    """What makes the content of `made` once more, where it is."""
    entry = _entry(func.overloadpacket.__name__)
    if entry is not None and isinstance(made, Tensor):
        call = partial(entry, *args, **kwargs, out=made)
        way = (func, len(args), tuple(kwargs))
        if way not in _takes_out:
            _takes_out[way] = _writes(call, made)
        if _takes_out[way]:
            return call
    return partial(_copy_into, tuple(_tensors(made)), partial(entry or func, *args, **kwargs))


def _writes(call: Callable[[], object], made: Tensor) -> bool:
    """Whether a call makes `made` again; its content is what it was afterwards."""
    wanted = made.clone()
    made.zero_()
    try:
        if call() is made and torch.equal(made, wanted):
            return True
    except (TypeError, RuntimeError):
        pass  # it cannot be told where to write
    made.copy_(wanted)
    return False


def _copy_into(made: tuple[Tensor, ...], call: Callable[[], object]) -> None:
    """For an operation that cannot be told where to write."""
    for target, source in zip(made, _tensors(call()), strict=True):
        target.copy_(source)


@cache
def _entry(name: str) -> Callable[..., Any] | None:
    """Torch's own function of an operation: quicker to call than the operation's overload."""
    inner: Any = torch._C
    places = (torch, inner._nn, inner._linalg)
    return next((getattr(one, name) for one in places if hasattr(one, name)), None)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
