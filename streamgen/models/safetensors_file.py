"""Reads safetensors: one file, or shards that an index names. Knows no model.

Format: https://github.com/huggingface/safetensors#format; the index is the one of transformers
and diffusers, {"weight_map": {tensor: file}}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.file_text import checked_key, reason_of

INDEX_SUFFIX = ".safetensors.index.json"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class SafetensorsFiles:
    """A safetensors file, or the shards that `path`, an index, names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wrapper: str | None = None
        self.wrappers: tuple[str, ...] = ()
        self._files = _shards(path) if path.name.endswith(INDEX_SUFFIX) else {path: None}
        self._file_of: dict[str, Path] = {}
        self._header: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        self.metadata: Mapping[str, str] = {}
        for file, expected in self._files.items():
            self._read_header(file, expected)
        self.size_bytes = sum(file.stat().st_size for file in self._files)

    def header(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        return self._header

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for file in self._files:
            own = [name for name in names if self._file_of[name] == file]
            if not own:
                continue
            try:
                with safe_open(file, framework="pt") as stored:
                    for name in own:
                        yield name, stored.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise _damaged(file, error) from error

    def _read_header(self, file: Path, expected: set[str] | None) -> None:
        try:
            with safe_open(file, framework="pt") as stored:
                self.metadata = {**self.metadata, **(stored.metadata() or {})}
                present = [checked_key(file, key) for key in stored.keys()]  # noqa: SIM118
                absent = sorted((expected or set()) - set(present))
                if absent:
                    raise CheckpointError(
                        f"{file}: {absent[0]} is missing, {self.path.name} says it is here; "
                        f"shards of different models are mixed: download them again"
                    )
                for name in present:
                    if expected is None or name in expected:
                        piece = stored.get_slice(name)
                        kind = _DTYPES.get(piece.get_dtype())
                        if kind is None:
                            raise CheckpointError(
                                f"{file}: {name} holds {piece.get_dtype()}, which is not "
                                f"supported; use the bf16 or fp16 file of the same model"
                            )
                        self._header[name] = (tuple(piece.get_shape()), kind)
                        self._file_of[name] = file
        except (SafetensorError, OSError) as error:
            raise _damaged(file, error) from error
        if not present:
            raise CheckpointError(f"{file}: holds no tensors; download or copy it again")


def _damaged(file: Path, error: Exception) -> CheckpointError:
    reason = reason_of(error)
    if re.search(r"incomplete|not fully covered|too small", reason, re.IGNORECASE):
        size = file.stat().st_size
        return CheckpointError(
            f"{file}: is truncated at {size} bytes ({reason}); download or copy it again"
        )
    return CheckpointError(
        f"{file}: is not a readable safetensors file ({reason}); it is damaged or of another "
        f"format: download or copy it again"
    )


def _shards(index: Path) -> dict[Path, set[str] | None]:
    """Each shard with the tensors that the index expects in it."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {checked_key(index, name): Path(file) for name, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = reason_of(error)
        raise CheckpointError(
            f"{index}: is not an index of shards ({reason}); download or copy it again"
        ) from error
    shards: dict[Path, set[str] | None] = {}
    for name, file in files.items():
        shard = index.parent / file
        if str(file) != file.name or not file.name.isprintable():
            raise CheckpointError(
                f"{index}: names the shard {ascii(str(file))[:160]} outside its own folder; "
                f"get the index from the model's authors"
            )
        if not shard.is_file():
            raise CheckpointError(
                f"{shard}: is missing, {index.name} names it; download the missing shard"
            )
        own = shards.setdefault(shard, set())
        assert own is not None
        own.add(name)
    if not shards:
        raise CheckpointError(f"{index}: names no tensors; download or copy it again")
    return shards
