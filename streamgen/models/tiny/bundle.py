"""The tiny model's one file: DiT, codec, text encoder and vocabulary in a safetensors file.

Tensors are named `dit.*`, `codec.*`, `text.*`, in fp16; the file's metadata holds their shapes as
JSON, so that a file describes itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from streamgen.errors import CheckpointError
from streamgen.models.base import Prediction
from streamgen.models.bundle import ModelBundle
from streamgen.models.loading import drop_blocks
from streamgen.models.tiny.codec import TinyCodec
from streamgen.models.tiny.header import FORMAT, PACKAGE_WEIGHTS, TinyHeader, read_header
from streamgen.models.tiny.text import TinyTextEncoder, Vocabulary
from streamgen.models.wan.dit import WanDiT


def save_tiny(
    path: Path, shapes: TinyHeader, *, dit: WanDiT, codec: TinyCodec, text: TinyTextEncoder
) -> None:
    """Write a file that `load_tiny` reads; it appears complete or not at all."""
    parts: dict[str, nn.Module] = {"dit": dit, "codec": codec, "text": text}
    tensors = {
        f"{part}.{name}": tensor.detach().half().cpu().contiguous()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {"format": FORMAT, "shapes": json.dumps(asdict(shapes))})
    partial.replace(path)


def load_tiny(
    weights: str, *, device: torch.device, dtype: torch.dtype, blocks: range | None = None
) -> ModelBundle:
    """Load the model of the package ("package") or of a file; of the DiT only `blocks`, if given.

    Raises CheckpointError if the file is missing, damaged, or of another kind.
    """
    path = PACKAGE_WEIGHTS if weights == "package" else Path(weights).expanduser()
    shapes, tensors = _read(path)
    dit = WanDiT(shapes.dit, Prediction.CHANGE)
    if blocks is not None:
        tensors = {name: one for name, one in tensors.items() if _is_kept(name, blocks)}
        drop_blocks(dit, blocks)
    codec = TinyCodec()
    text = TinyTextEncoder(
        Vocabulary(shapes.vocabulary),
        dim=shapes.text.dim,
        num_layers=shapes.text.num_layers,
        text_len=shapes.dit.text_len,
    )
    parts: dict[str, nn.Module] = {"dit": dit, "codec": codec, "text": text}
    for part, module in parts.items():
        _fill(module, part, tensors, path)
        module.to(device, dtype).eval().requires_grad_(False)
    codec.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return ModelBundle(dit=dit, codec=codec, text=text, knowledge=shapes.knowledge)


def _read(path: Path) -> tuple[TinyHeader, dict[str, Tensor]]:
    shapes = read_header(path)
    try:
        with safe_open(path, framework="pt") as stored:
            return shapes, {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); copy or download it again"
        ) from error


def _is_kept(name: str, blocks: range) -> bool:
    """Whether a tensor belongs to one of these blocks, or to none at all."""
    part, kind, index, *_ = (*name.split("."), "", "")
    return (part, kind) != ("dit", "blocks") or int(index) in blocks


def _fill(module: nn.Module, part: str, tensors: dict[str, Tensor], path: Path) -> None:
    """Load one part strictly: every tensor there, no other, of the right shape."""
    prefix = f"{part}."
    own = {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    expected = module.state_dict()
    for name in sorted(expected.keys() ^ own.keys()):
        state = "is missing" if name in expected else "is unexpected"
        raise CheckpointError(f"{path}: {prefix}{name} {state}; the file is of another version")
    for name, tensor in own.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {prefix}{name} is {tuple(tensor.shape)}, the model needs "
                f"{tuple(expected[name].shape)}; the file is of another version"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: {prefix}{name} holds NaN or infinity; the file is damaged or its "
                f"training failed, use another"
            )
    module.load_state_dict(own)
