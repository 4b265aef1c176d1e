"""Reads LoRA files of every published kind into deltas by native parameter name.

PEFT         base_model.model.blocks.0.self_attn.q.lora_A.weight (LongLive: in generator_lora)
diffusers    transformer.blocks.0.attn1.to_q.lora_A.weight, or .lora.down.weight
ComfyUI      diffusion_model.blocks.0.self_attn.q.lora_down.weight, .alpha, or lora_A
lightx2v     as ComfyUI, and .diff (weights), .diff_b (biases), .diff_m (modulations)
kohya        lora_unet_blocks_0_self_attn_q.lora_down.weight, .alpha
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.checkpoint_kinds import Kind, Naming, kind_of, naming_of
from streamgen.models.file_text import reason_of
from streamgen.models.loading import finite_copy
from streamgen.models.wan.lora import Delta, Difference, Lora, LowRank
from streamgen.models.wan.names import from_underscored, strip_prefixes, to_native
from streamgen.models.weights_file import WeightsFile, open_weights

_KEY = re.compile(
    r"(?P<module>.+?)\."
    r"(?:(?P<factor>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)(?:\.(?!weight)\w+)?"
    r"(?:\.weight)?|(?P<whole>alpha|diff|diff_b|diff_m))"
)
_ROLES = {
    "lora_A": "down",
    "lora_down": "down",
    "lora.down": "down",
    "lora_B": "up",
    "lora_up": "up",
    "lora.up": "up",
}
_CHANGED = {"diff": "weight", "diff_b": "bias", "diff_m": "modulation"}
_KOHYA = "lora_unet_"


@dataclass(frozen=True, slots=True)
class _Scaling:
    """What a PEFT config says of alpha; empty where there is none."""

    alpha: float | None = None
    alpha_of: Mapping[str, float] = field(default_factory=dict)
    """Exceptions, by the end of a module's name."""
    is_rank_stabilised: bool = False


@dataclass(slots=True)
class _Module:
    """The tensors that one file has for one module, while it is being read."""

    name: str
    """Native."""
    in_file: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """By role: down, up, alpha, diff, diff_b, diff_m."""


def read_lora(path: Path | str, *, alpha: float | None = None) -> Lora:
    """Read one LoRA; its tensors are on the CPU, in the file's dtype.

    alpha is, in this order: the argument, the file's own `.alpha`, adapter_config.json beside the
    file (PEFT), the file's metadata (diffusers), or else the rank, which is a factor of 1.

    Raises CheckpointError, naming the key, for anything that is not one of the known formats.
    """
    file = open_weights(path)
    kind = kind_of(file.tensors)
    if kind is not Kind.LORA:
        raise CheckpointError(
            f"{file.path}: is not a LoRA but {kind.value}; set it as the model's weights instead"
        )
    scaling = _scaling(file)
    deltas: list[Delta] = []
    for module in _modules(file):
        deltas += _deltas(file, module, scaling, alpha)
    return Lora(file.path, tuple(deltas))


def _modules(file: WeightsFile) -> list[_Module]:
    """Group the file's tensors by the module that they change."""
    is_foreign = naming_of(file.tensors) is Naming.DIFFUSERS
    places: dict[str, tuple[str, str]] = {}
    taken: set[tuple[str, str]] = set()
    modules: dict[str, _Module] = {}
    for key in file.tensors:
        match = _KEY.fullmatch(key)
        name = _native(match["module"], is_foreign=is_foreign) if match else None
        if match is None or name is None:
            raise CheckpointError(f"{file.path}: {key} {_why_unknown(key)}")
        role = match["whole"] or _ROLES[match["factor"]]
        modules.setdefault(name, _Module(name, strip_prefixes(match["module"])))
        if (name, role) in taken:
            raise CheckpointError(
                f"{file.path}: {key} is a second {role} of {name}; the file mixes two LoRAs: "
                f"get the original one"
            )
        taken.add((name, role))
        places[key] = (name, role)
    file.require_floating(key for key, (_, role) in places.items() if role != "alpha")
    for key, stored in file.read(list(places)):
        name, role = places[key]
        narrow = not stored.is_floating_point() or stored.dtype.itemsize == 1
        dtype = torch.float32 if narrow else stored.dtype
        modules[name].tensors[role] = finite_copy(
            stored, device=torch.device("cpu"), dtype=dtype, file=file, key=key
        )
    return list(modules.values())


def _native(module: str, *, is_foreign: bool) -> str | None:
    if module.startswith(_KOHYA):
        return from_underscored(module.removeprefix(_KOHYA))
    stripped = strip_prefixes(module)
    return to_native(stripped) if is_foreign else stripped


def _why_unknown(key: str) -> str:
    if "dora_scale" in key or "magnitude_vector" in key:
        return "is of a DoRA, which is not supported; use a plain LoRA of the same adaptation"
    if "hada_w" in key or "lokr_w" in key:
        return "is of a LoHa or LoKr, which is not supported; use a plain LoRA instead"
    return "is of no known LoRA format (PEFT, diffusers, ComfyUI, kohya); convert the file"


def _deltas(
    file: WeightsFile, module: _Module, scaling: _Scaling, alpha: float | None
) -> list[Delta]:
    deltas: list[Delta] = []
    tensors = module.tensors
    if "down" in tensors or "up" in tensors:
        for role in ("down", "up"):
            if role not in tensors:
                raise CheckpointError(
                    f"{file.path}: {module.name} has no {role} factor; the file is incomplete: "
                    f"download or copy it again"
                )
        deltas.append(_low_rank(file, module, scaling, alpha))
    for role, leaf in _CHANGED.items():
        if role in tensors:
            is_whole = module.name.endswith(".modulation")
            parameter = module.name if is_whole else f"{module.name}.{leaf}"
            deltas.append(Difference(parameter, tensors[role]))
    return deltas


def _low_rank(
    file: WeightsFile, module: _Module, scaling: _Scaling, alpha: float | None
) -> LowRank:
    down, up = module.tensors["down"], module.tensors["up"]
    is_matrix = down.ndim >= 2 and up.ndim >= 2 and up.shape[1:].numel() == up.shape[1]
    if not is_matrix or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise CheckpointError(
            f"{file.path}: {module.name} has factors of {tuple(down.shape)} and "
            f"{tuple(up.shape)}, whose ranks differ; the file mixes two LoRAs"
        )
    rank = down.shape[0]
    chosen = alpha
    if chosen is None and "alpha" in module.tensors:
        chosen = _number(file, module)
    if chosen is None:
        own = [a for end, a in scaling.alpha_of.items() if _ends(module.in_file, end)]
        chosen = own[0] if own else scaling.alpha
    if chosen is None:
        chosen = float(rank)
    divisor = math.sqrt(rank) if scaling.is_rank_stabilised else rank
    return LowRank(f"{module.name}.weight", down, up, chosen / divisor)


def _number(file: WeightsFile, module: _Module) -> float:
    stored = module.tensors["alpha"]
    if stored.numel() != 1:
        raise CheckpointError(
            f"{file.path}: alpha of {module.name} is {tuple(stored.shape)}, not one number; the "
            f"file is damaged: download or copy it again"
        )
    return float(stored)


def _ends(module: str, end: str) -> bool:
    return f".{module}".endswith(f".{end}")


def _scaling(file: WeightsFile) -> _Scaling:
    """PEFT's config: a file beside the weights, or inside them as diffusers writes it."""
    beside = file.path.parent / "adapter_config.json"
    inside = file.metadata.get("lora_adapter_metadata")
    if not beside.is_file() and inside is None:
        return _Scaling()
    source = beside if beside.is_file() else file.path
    try:
        text = beside.read_text(encoding="utf-8") if beside.is_file() else inside or ""
        config = {key.removeprefix("transformer."): v for key, v in json.loads(text).items()}
        stated = config.get("lora_alpha")
        return _Scaling(
            alpha=None if stated is None else float(stated),
            alpha_of={end: float(a) for end, a in (config.get("alpha_pattern") or {}).items()},
            is_rank_stabilised=bool(config.get("use_rslora", False)),
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: its LoRA config cannot be read ({reason_of(error)}); get it again, "
            f"or remove it and give alpha"
        ) from error
