"""Small Wan checkpoints, written in each layout in which models are published."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.names import to_diffusers

SMALL = WanConfig(
    in_dim=16,
    out_dim=16,
    dim=128,
    ffn_dim=96,
    freq_dim=32,
    text_dim=24,
    text_len=512,
    num_heads=1,
    num_blocks=3,
    patch_height=2,
    patch_width=2,
    eps=1e-6,
)

State = dict[str, Tensor]
Writer = Callable[[Path, State], Path]


def random_weights(seed: int, config: WanConfig = SMALL) -> State:
    """Native names; every tensor random, those too that start at one or zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in WanDiT(config).state_dict().items()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def in_diffusers_names(state: State) -> State:
    return {to_diffusers(name): tensor for name, tensor in state.items()}


def write_torch(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def write_shards(folder: Path, state: State, *, num_shards: int = 2) -> Path:
    """Shards and their index, as transformers, diffusers and Wan 2.1 14B publish them."""
    folder.mkdir()
    weight_map: dict[str, str] = {}
    for number in range(num_shards):
        file = f"diffusion_pytorch_model-{number + 1:05}-of-{num_shards:05}.safetensors"
        own = dict(list(state.items())[number::num_shards])
        save_file(own, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    name = "diffusion_pytorch_model.safetensors.index.json"
    (folder / name).write_text(json.dumps(index), encoding="utf-8")
    return folder


def _self_forcing(folder: Path, state: State) -> Path:
    stale = {name: tensor + 1 for name, tensor in state.items()}
    content = {
        "generator": prefixed(stale, "model."),
        "generator_ema": prefixed(state, "model."),
    }
    return write_torch(folder / "self_forcing_dmd.pt", content)


def _causvid(folder: Path, state: State) -> Path:
    return write_torch(folder / "model.pt", {"generator": prefixed(state, "model.")})


def _stream_diffusion_v2(folder: Path, state: State) -> Path:
    return write_torch(folder / "model.pt", {"state_dict": state, "step": 600})


def _longlive(folder: Path, state: State) -> Path:
    content = {"generator": prefixed(state, "model."), "generator_ema": {}}
    return write_torch(folder / "longlive_base.pt", content)


def _rolling_forcing(folder: Path, state: State) -> Path:
    wrapped: State = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts.insert(2, "_fsdp_wrapped_module")
        wrapped["model._fsdp_wrapped_module." + ".".join(parts)] = tensor
    return write_torch(folder / "rolling_forcing_dmd.pt", {"generator_ema": wrapped})


def _compiled(folder: Path, state: State) -> Path:
    content = {"model": prefixed(state, "module._orig_mod.")}
    return write_torch(folder / "compiled.pth", content)


def _krea(folder: Path, state: State) -> Path:
    path = folder / "krea-realtime-video-14b.safetensors"
    save_file(prefixed(state, "model."), path)
    return path


def _comfy(folder: Path, state: State) -> Path:
    path = folder / "wan.safetensors"
    save_file(prefixed(state, "model.diffusion_model."), path)
    return path


def _original(folder: Path, state: State) -> Path:
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return folder


def _original_shards(folder: Path, state: State) -> Path:
    return write_shards(folder / "original", state)


def _diffusers_shards(folder: Path, state: State) -> Path:
    (folder / "repository").mkdir()
    write_shards(folder / "repository" / "transformer", in_diffusers_names(state))
    return folder / "repository"


def _diffusers_single(folder: Path, state: State) -> Path:
    path = folder / "diffusers.safetensors"
    save_file(in_diffusers_names(state), path)
    return path


LAYOUTS: Mapping[str, Writer] = {
    "Self-Forcing": _self_forcing,
    "CausVid": _causvid,
    "StreamDiffusionV2": _stream_diffusion_v2,
    "LongLive": _longlive,
    "Rolling Forcing": _rolling_forcing,
    "compiled": _compiled,
    "Krea": _krea,
    "ComfyUI": _comfy,
    "original": _original,
    "original, sharded": _original_shards,
    "diffusers, sharded": _diffusers_shards,
    "diffusers": _diffusers_single,
}
"""What an author publishes, and a function (folder, weights) -> the path that a user gives."""
