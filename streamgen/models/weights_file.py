"""Opens a file of weights, says what tensors it holds, and reads the ones that are asked for.

Two formats: safetensors (one file, or shards with an index) and torch's zip files (.pt, .pth,
.bin), the latter unpickled by torch's restricted loader, which runs no code. Which format a file
has is read from its first bytes, not from its name. Knows no model: names are the file's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.safetensors_file import INDEX_SUFFIX, SafetensorsFiles
from streamgen.models.torch_file import TorchFile

NUM_WINDOWS = 64  # a file is mapped afresh this often, so that at most 1/64 of it is resident
MIN_WINDOW_BYTES = 2 << 20
TORCH_SUFFIXES = (".pt", ".pth", ".bin")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What a file says of one tensor without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class TensorReader(Protocol):
    """One format: a safetensors file, its shards, or a torch file."""

    path: Path
    """The file; the index of a sharded one."""
    wrapper: str | None
    """Which state dict of the file was taken, where it holds several by name."""
    wrappers: tuple[str, ...]
    """All there are to choose from."""
    metadata: Mapping[str, str]
    """Text that a safetensors file carries beside its tensors."""
    size_bytes: int

    def header(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of every tensor, in the order of the file."""
        ...

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Map the file once; yield views of its pages, which the caller copies at once."""
        ...


class WeightsFile:
    """An opened file of weights. Holds names and shapes, no tensors."""

    def __init__(self, reader: TensorReader) -> None:
        self._reader = reader
        self.path = reader.path
        self.wrapper = reader.wrapper
        self.wrappers = reader.wrappers
        self.metadata = reader.metadata
        self.size_bytes = reader.size_bytes
        self.tensors = {
            name: StoredTensor(shape, kind) for name, (shape, kind) in reader.header().items()
        }

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield tensors one by one, in the order of the file.

        Each is a view of the mapped file: copy it, keep none. The file is closed and mapped again
        after every 1/64 of it, because pages that were read stay in memory until then.
        """
        wanted = set(names)
        ordered = iter([name for name in self.tensors if name in wanted])
        window_bytes = max(MIN_WINDOW_BYTES, self.size_bytes // NUM_WINDOWS)
        while window := self._window(ordered, window_bytes):
            yield from self._reader.read(window)

    def require_floating(self, names: Iterable[str]) -> None:
        """Raise CheckpointError unless these tensors hold floating-point numbers."""
        for name in names:
            dtype = self.tensors[name].dtype
            if not dtype.is_floating_point:
                raise CheckpointError(
                    f"{self.path}: {name} holds {dtype}, weights are floating-point; the "
                    f"file is probably quantised: use the bf16 or fp16 file of the same model"
                )

    def _window(self, names: Iterator[str], window_bytes: int) -> list[str]:
        """The next names, until their tensors fill a window; empty at the end."""
        window = list(islice(names, 1))
        filled = sum(self.tensors[name].size_bytes for name in window)
        while filled < window_bytes and (more := list(islice(names, 1))):
            window += more
            filled += self.tensors[more[0]].size_bytes
        return window


def open_weights(path: Path | str, *, wrapper: str | None = None) -> WeightsFile:
    """Open a file or a folder that holds one model.

    `wrapper` chooses among the state dicts of a training checkpoint ("generator_ema",
    "generator", ...); by default the first published one that is there. Raises CheckpointError
    for everything that is not a readable file of weights.
    """
    file = _find(Path(path).expanduser())
    return WeightsFile(_reader(file, wrapper))


def _reader(file: Path, wrapper: str | None) -> TensorReader:
    if not file.name.endswith(INDEX_SUFFIX) and _format(file) == "torch":
        if file.suffix == ".safetensors":
            raise CheckpointError(f"{file}: is a torch file by its contents; rename it to .pt")
        return TorchFile(file, wrapper)
    if wrapper is not None:
        raise CheckpointError(
            f"{file}: a safetensors file holds one model, there is no {wrapper!r} to choose; "
            f"leave the wrapper away"
        )
    return SafetensorsFiles(file)


def _find(path: Path) -> Path:
    """The file itself, or the one model in a folder (also of a diffusers repository)."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such file or folder; check the path")
    groups = (f"*{INDEX_SUFFIX}", "*.safetensors", *(f"*{suffix}" for suffix in TORCH_SUFFIXES))
    for pattern in groups:
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found[:4])
            raise CheckpointError(
                f"{path}: holds {len(found)} files that may be meant ({names}); name one of them, "
                f"or add the shards' *{INDEX_SUFFIX}"
            )
    if (path / "transformer").is_dir():
        return _find(path / "transformer")
    raise CheckpointError(
        f"{path}: holds no weights (*.safetensors, {', '.join(f'*{s}' for s in TORCH_SUFFIXES)}); "
        f"check the path"
    )


def _format(file: Path) -> str:
    """ "safetensors" or "torch", by the first bytes; CheckpointError for anything else."""
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); check it") from error
    if not head:
        raise CheckpointError(f"{file}: is empty (0 bytes); download or copy it again")
    for magic, what in _OTHER_FILES.items():
        if head.lstrip().lower().startswith(magic):
            raise CheckpointError(f"{file}: {what}")
    return "torch" if head.startswith(b"PK\x03\x04") else "safetensors"


_OTHER_FILES = {
    b"version https://git-lfs": "is a Git LFS pointer, not the weights; run: git lfs pull",
    b"<!doctype": "is a web page, not weights; the download needs a login or another address",
    b"<html": "is a web page, not weights; the download needs a login or another address",
    b"gguf": "is a GGUF file, which is quantised; use the bf16 or fp16 file of the same model",
    b"\x80\x02": (
        "is a bare pickle or of torch's format from before 1.6, which cannot be mapped; re-save "
        "it: torch.save(torch.load(old, weights_only=True), new)"
    ),
}
