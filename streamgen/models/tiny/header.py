"""What a tiny model's file says of itself, read without loading torch.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the header as
JSON, in which `__metadata__` maps strings to strings
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from streamgen.errors import CheckpointError
from streamgen.models.wan.config import WanConfig

PACKAGE_WEIGHTS = Path(__file__).parent / "weights" / "tiny.safetensors"
PACKAGE_HEADS = PACKAGE_WEIGHTS.with_name("heads.json")
FORMAT = "streamgen-tiny-1"
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True, slots=True)
class TextShape:
    """Sizes of the text encoder."""

    dim: int
    num_layers: int


@dataclass(frozen=True, slots=True)
class TinyHeader:
    """Shapes of the parts, the vocabulary, and what the model knows."""

    dit: WanConfig
    text: TextShape
    vocabulary: dict[str, str]
    knowledge: str


def read_header(path: Path) -> TinyHeader:
    """Read the header of a tiny model's file.

    Raises CheckpointError if the file is missing, damaged, or of another kind.
    """
    metadata = _metadata(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {metadata.get('format')!r}, a tiny model has {FORMAT!r}; "
            f"choose a preset of the file's own family"
        )
    try:
        shapes = json.loads(metadata["shapes"])
        return TinyHeader(
            dit=WanConfig(**shapes["dit"]),
            text=TextShape(**shapes["text"]),
            vocabulary=shapes["vocabulary"],
            knowledge=shapes["knowledge"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its header is not a tiny model's ({error}); the file is of another version"
        ) from error


def _metadata(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
            if length > MAX_HEADER_BYTES:
                raise ValueError("no header")
            header: dict[str, dict[str, str]] = json.loads(file.read(length))
            return header.get("__metadata__", {})
    except FileNotFoundError:
        raise CheckpointError(
            f'{path}: there is no such weights file; set model.weights = "package" or another path'
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); copy or download it again"
        ) from error
