"""What a file of weights is, and whether it loads: for people who look at a download."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from streamgen.errors import CheckpointError
from streamgen.models.checkpoint_kinds import Kind, kind_of
from streamgen.models.hub import find
from streamgen.models.loading import CheckpointInfo, describe, verify_dit, verify_finite
from streamgen.models.tiny.bundle import load_tiny
from streamgen.models.wan.codec_files import VAE_PLACES, load_tae_file, load_vae_file
from streamgen.models.wan.lora_file import read_lora
from streamgen.models.wan.names import block_of
from streamgen.models.wan.sizes import size_name
from streamgen.models.wan.text import TEXT_PLACES, check_text_encoder, open_text_weights
from streamgen.models.wan.vae_config import LatentNorm
from streamgen.models.weights_file import open_weights

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Checked:
    """One file that loads."""

    path: Path
    kind: str
    details: tuple[str, ...]


def check_path(text: str) -> Iterator[Checked]:
    """Check a file, or every part in a folder of a whole model; all of each file is read.

    Raises CheckpointError, naming file, key and cause, at the first that does not load.
    """
    path = find(text, remedy="get it with: streamgen models download PRESET")
    for part in _parts(path):
        yield _check(part)


def _parts(path: Path) -> Iterator[Path]:
    """The path itself, or what a folder of a published model holds."""
    inside = [path / name for name in (*VAE_PLACES, *TEXT_PLACES) if (path / name).exists()]
    if not inside:
        yield path
        return
    if (path / "transformer").is_dir() or any(path.glob("diffusion_pytorch_model*")):
        yield path / "transformer" if (path / "transformer").is_dir() else path
    yield from inside


def _check(path: Path) -> Checked:
    kind = kind_of(open_weights(path).tensors)
    if kind is Kind.UNKNOWN:
        raise CheckpointError(
            f"{path}: holds no kind of weights that is known here (Wan DiT, LoRA, Wan VAE, TAEHV, "
            f"UMT5, tiny model); check that it is the file that you meant"
        )
    info = describe(path)
    return Checked(info.path, kind.value, (*_loaded(info), _size(info)))


def _loaded(info: CheckpointInfo) -> Iterator[str]:
    """Load what the file holds and say what it is; CheckpointError if it does not load."""
    match info.kind:
        case Kind.DIT:
            config = verify_dit(info.path)
            assert info.naming is not None
            yield f"{size_name(config)}, {info.naming.value} names"
            if info.wrapper:
                others = [name for name in info.wrappers if name != info.wrapper]
                also = f"; also there: {', '.join(others)} (wan.state_dict)" if others else ""
                yield f"state dict {info.wrapper} is taken{also}"
        case Kind.LORA:
            deltas = read_lora(info.path).deltas
            blocks = {block_of(delta.parameter) for delta in deltas} - {None}
            yield f"changes {len(deltas)} weights of {len(blocks)} blocks"
        case Kind.VAE:
            load_vae_file(info.path, norm=LatentNorm.STANDARD, device=CPU, dtype=torch.float32)
        case Kind.TAE:
            load_tae_file(info.path, device=CPU, dtype=torch.float32)
        case Kind.TEXT_ENCODER:
            file = open_text_weights(info.path)
            sizes = check_text_encoder(file)
            verify_finite(file)
            yield f"{sizes.num_layers} layers, dim {sizes.dim}, {sizes.vocabulary} tokens"
        case Kind.TINY:
            yield load_tiny(str(info.path), device=CPU, dtype=torch.float32).knowledge
        case Kind.IMAGE_ENCODER | Kind.UNKNOWN:
            verify_finite(open_weights(info.path))
            yield "no recipe of this package reads it"


def _size(info: CheckpointInfo) -> str:
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in info.dtypes)
    return (
        f"{info.num_tensors} tensors, {info.num_params / 1e6:,.1f} million numbers, {dtypes}, "
        f"{info.size_bytes / 1e9:.2f} GB"
    )
