"""Training on from a shipped file: its codec becomes the run's."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from streamgen.models.tiny.bundle import load_tiny
from streamgen.models.tiny.codec import TinyCodec


def take_codec(weights: Path, *, transform: Path, codec: Path) -> None:
    """Write the codec of a shipped file where the pool and the export look for theirs."""
    bundle = load_tiny(str(weights), device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(bundle.codec, TinyCodec)
    state = {name: tensor.contiguous() for name, tensor in bundle.codec.state_dict().items()}
    if not transform.exists():
        torch.save(state, transform)
    if not codec.exists():
        save_file(state, codec)
