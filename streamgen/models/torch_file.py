"""Reads torch's zip files (.pt, .pth, .bin) without running code. Knows no model.

Training checkpoints hold several state dicts by name; the published names, in the order in which
their authors' own programs prefer them, are WRAPPERS (Self-Forcing, CausVid, StreamDiffusionV2,
Rolling Forcing, LongLive, Reward Forcing, Causal Forcing).
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.file_text import checked_key, reason_of

WRAPPERS = ("generator_ema", "generator", "state_dict", "model", "generator_lora")
MAX_DEPTH = 3  # wrappers within wrappers; a file may also contain itself
MAX_STRUCTURE_BYTES = 16 * 2**20  # of the pickle of names and shapes: 0.17 MB for 2,190 tensors

# A damaged pickle can make torch's restricted unpickler stumble in any of these ways.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
)


class TorchFile:
    """One state dict of a torch file."""

    def __init__(self, path: Path, wrapper: str | None) -> None:
        self.path = path
        self.metadata: Mapping[str, str] = {}
        self.size_bytes = path.stat().st_size
        self._keys: tuple[str, ...] = ()
        self.wrappers: tuple[str, ...] = ()
        state = self._unwrap(_load(path), wrapper)
        self.wrapper: str | None = self._keys[-1] if self._keys else None
        self._header = {
            checked_key(path, name): _checked(path, name, tensor) for name, tensor in state.items()
        }

    def header(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        return self._header

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        state = self._mapping(_load(self.path))
        for key in self._keys:
            state = self._mapping(state[key])
        for name in names:
            tensor = state[name]
            assert isinstance(tensor, Tensor)
            yield name, tensor

    def _unwrap(self, loaded: object, wrapper: str | None) -> Mapping[str, object]:
        """The state dict inside: first the chosen wrapper, then what that may hold in turn."""
        state = self._mapping(loaded)
        self.wrappers = _present(state)
        if wrapper is not None and wrapper not in self.wrappers:
            raise CheckpointError(
                f"{self.path}: has no {wrapper!r}; "
                f"it has {', '.join(self.wrappers) or 'one model, not wrapped'}"
            )
        chosen = (wrapper,) if wrapper else self.wrappers
        while chosen and len(self._keys) < MAX_DEPTH:
            self._keys += chosen[:1]
            state = self._mapping(state[chosen[0]])
            chosen = _present(state)
        return state

    def _mapping(self, loaded: object) -> Mapping[str, object]:
        if isinstance(loaded, Mapping) and loaded:
            return loaded
        what = "an empty dict" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise CheckpointError(
            f"{self.path}: holds {what}, not a state dict; use the file of the model's weights"
        )


def _present(state: Mapping[str, object]) -> tuple[str, ...]:
    """Wrappers that hold something; an EMA that training had not yet begun is empty."""
    return tuple(
        name for name in WRAPPERS if isinstance(inner := state.get(name), Mapping) and inner
    )


def _load(path: Path) -> object:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _check_archive(path: Path) -> None:
    """Refuse what would grow without bound while it is read; other damage is found by torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f"{path}: is a compressed archive, which torch never writes; use the published file"
        )
    structure = max((e.file_size for e in entries if e.filename.endswith(".pkl")), default=0)
    if structure > MAX_STRUCTURE_BYTES:
        raise CheckpointError(
            f"{path}: describes its tensors in {structure} bytes, {MAX_STRUCTURE_BYTES} are "
            f"allowed; use the file of the model's weights"
        )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())
    code = re.search(r"(?:GLOBAL|Unsupported (?:class|operand))[: ]+([\w.]+)", reason)
    if code:
        return CheckpointError(
            f"{path}: holds Python objects ({code[1]}) beside tensors and is not opened, because "
            f"they could run code; use a safetensors file, or have its author re-save the tensors"
        )
    if "central directory" in reason:
        return CheckpointError(
            f"{path}: is truncated at {path.stat().st_size} bytes; download or copy it again"
        )
    return CheckpointError(
        f"{path}: is damaged or not a torch file ({reason_of(error)}); download or copy it again"
    )


def _checked(path: Path, name: str, value: object) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of one entry; CheckpointError unless it is a plain, dense tensor.

    A tensor may not be larger than what is stored of it: stride 0 would let a small file ask for
    any amount of memory.
    """
    if not isinstance(value, Tensor):
        raise CheckpointError(
            f"{path}: {name} is a {type(value).__name__}, not a tensor; use the file of the "
            f"model's weights, or choose a wrapper"
        )
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise CheckpointError(
            f"{path}: {name} is not a dense tensor ({value.layout}); use the bf16 or fp16 file"
        )
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: {name} is {tuple(value.shape)}, more than what is stored of it; the file is "
            f"damaged: download or copy it again"
        )
    return tuple(value.shape), value.dtype
