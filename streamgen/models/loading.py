"""Loads a published Wan checkpoint, whatever its layout, into the project's one DiT.

A file is opened (weights_file), its names are brought to the native ones (wan/names), its size is
told from its shapes (wan/sizes); then the model is built without memory and filled tensor by
tensor. Nothing is read before all names and shapes fit.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from streamgen.errors import CheckpointError
from streamgen.models.base import Prediction
from streamgen.models.checkpoint_kinds import Kind, Naming, kind_of, naming_of
from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.names import strip_prefixes, to_native
from streamgen.models.wan.sizes import NotAWanDiTError, difference, infer_config
from streamgen.models.weights_file import WeightsFile, open_weights

_QUANTISED = re.compile(r"scale_weight|weight_scale|scale_input|input_scale|scaled_fp8|comfy_quant")
_IMAGE = re.compile(r"img_emb\.|_img\.")


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a file of weights is, told without reading its tensors."""

    path: Path
    kind: Kind
    wrapper: str | None
    """State dict that was taken: "generator_ema", ...; None for a flat file."""
    wrappers: tuple[str, ...]
    """All state dicts that one can choose from."""
    naming: Naming | None
    """None for what is not a DiT or a LoRA."""
    size_bytes: int
    num_tensors: int
    num_params: int
    dtypes: tuple[torch.dtype, ...]
    """The commonest first, by number of parameters."""
    config: WanConfig | None
    """Of a DiT of head dim 128, else None."""


class AbsentBlock(nn.Module):
    """Stands where another stage's block would be: holds nothing, refuses to run."""

    def forward(self, *inputs: object) -> Tensor:
        raise RuntimeError("this block is not on this stage; its weights were not loaded")


def describe(path: Path | str, *, wrapper: str | None = None) -> CheckpointInfo:
    """Say what a file or folder of weights is; CheckpointError if it cannot be opened."""
    file = open_weights(path, wrapper=wrapper)
    kind = kind_of(file.tensors)
    counts: Counter[torch.dtype] = Counter()
    for stored in file.tensors.values():
        counts[stored.dtype] += stored.size_bytes // stored.dtype.itemsize
    named = kind in (Kind.DIT, Kind.LORA)
    return CheckpointInfo(
        path=file.path,
        kind=kind,
        wrapper=file.wrapper,
        wrappers=file.wrappers,
        naming=naming_of(file.tensors) if named else None,
        size_bytes=file.size_bytes,
        num_tensors=len(file.tensors),
        num_params=sum(counts.values()),
        dtypes=tuple(dtype for dtype, _ in counts.most_common()),
        config=_config_or_none(file) if kind is Kind.DIT else None,
    )


def load_dit(
    path: Path | str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    blocks: range | None = None,
    config: WanConfig | None = None,
    wrapper: str | None = None,
    prediction: Prediction = Prediction.VELOCITY,
) -> WanDiT:
    """Load a DiT in any published layout; its weights are copies, the file may go afterwards.

    `blocks` are those of this stage: the others are never read, and an AbsentBlock stands in
    their place. `config` is what the recipe wants; without it the file's own shapes decide, with
    head dim 128. Peak memory is the weights plus the largest tensor and 1/64 of the
    file.

    Raises CheckpointError, naming file, key and cause, if anything is missing, unexpected,
    misshaped, not finite or unreadable.
    """
    file = open_weights(path, wrapper=wrapper)
    kind = kind_of(file.tensors)
    if kind is not Kind.DIT:
        raise CheckpointError(
            f"{file.path}: is not a {Kind.DIT.value} but {_called(kind)}; "
            f"set the path of the DiT's own weights"
        )
    keys = native_names(file)
    _reject_foreign(file, keys)
    file.require_floating(file.tensors)
    shapes = {name: file.tensors[key].shape for name, key in keys.items()}
    dit = _empty_dit(_checked_config(file, shapes, config), prediction)
    _check_names(file, keys, dit)
    if blocks is not None:
        drop_blocks(dit, blocks)
    _fill(dit, file, keys, device=device, dtype=dtype)
    return dit.eval().requires_grad_(False)


def verify_dit(path: Path | str, *, wrapper: str | None = None) -> WanConfig:
    """Do all that loading does, a tensor at a time, and keep nothing; the sizes of the model.

    Raises CheckpointError as `load_dit` does.
    """
    file = open_weights(path, wrapper=wrapper)
    keys = native_names(file)
    _reject_foreign(file, keys)
    file.require_floating(file.tensors)
    shapes = {name: file.tensors[key].shape for name, key in keys.items()}
    config = _checked_config(file, shapes, None)
    _check_names(file, keys, _empty_dit(config, Prediction.VELOCITY))
    verify_finite(file)
    return config


def verify_finite(file: WeightsFile) -> None:
    """Read every tensor; CheckpointError for one that cannot be read or is not finite."""
    for key, stored in file.read(list(file.tensors)):
        dtype = torch.promote_types(stored.dtype, torch.float32)
        finite_copy(stored, device=torch.device("cpu"), dtype=dtype, file=file, key=key)


def native_names(file: WeightsFile) -> dict[str, str]:
    """Native name to the file's own key; CheckpointError if two keys mean the same."""
    is_foreign = naming_of(file.tensors) is Naming.DIFFUSERS
    keys: dict[str, str] = {}
    for key in file.tensors:
        stripped = strip_prefixes(key)
        name = to_native(stripped) if is_foreign else stripped
        if name in keys:
            raise CheckpointError(
                f"{file.path}: {keys[name]} and {key} both mean {name}; the file mixes two "
                f"models: get the original one"
            )
        keys[name] = key
    return keys


def finite_copy(
    stored: Tensor, *, device: torch.device, dtype: torch.dtype, file: WeightsFile, key: str
) -> Tensor:
    """Copy a view of the file to its place; CheckpointError unless all of it is finite."""
    copy = torch.empty(stored.shape, device=device, dtype=dtype).copy_(stored)
    low, high = torch.aminmax(copy)
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        in_file = bool(stored.float().isfinite().all())
        cause = (
            f"holds numbers too large for {dtype}; load it as bfloat16 or float32"
            if in_file
            else "holds NaN or infinity; the file is damaged: download or copy it again"
        )
        raise CheckpointError(f"{file.path}: {key} {cause}")
    return copy


def _called(kind: Kind) -> str:
    return "of unknown contents" if kind is Kind.UNKNOWN else f"a {kind.value}"


def _config_or_none(file: WeightsFile) -> WanConfig | None:
    try:
        return infer_config(
            {name: file.tensors[key].shape for name, key in native_names(file).items()}
        )
    except (NotAWanDiTError, CheckpointError):
        return None


def _reject_foreign(file: WeightsFile, keys: dict[str, str]) -> None:
    """Name what a Wan file may hold beside the parameters of a text-to-video DiT."""
    for name, key in keys.items():
        if _QUANTISED.search(name):
            raise CheckpointError(
                f"{file.path}: {key} belongs to a quantised model; use the bf16 or fp16 file of "
                f"the same model"
            )
        if _IMAGE.search(name):
            raise CheckpointError(
                f"{file.path}: {key} belongs to an image-to-video model with CLIP features, "
                f"which causal recipes do not use; choose a text-to-video checkpoint"
            )


def _checked_config(
    file: WeightsFile, shapes: dict[str, tuple[int, ...]], wanted: WanConfig | None
) -> WanConfig:
    try:
        found = infer_config(shapes, head_dim=wanted.head_dim if wanted else 128)
    except NotAWanDiTError as error:
        cause = _shard_cause(file) or "the file is incomplete, or of another model family"
        raise CheckpointError(f"{file.path}: {error}; {cause}") from error
    if wanted is None:
        return found
    unequal = difference(found, wanted)
    if unequal:
        raise CheckpointError(
            f"{file.path}: {unequal}; choose a recipe of the file's size, or the recipe's file"
        )
    return wanted


def _shard_cause(file: WeightsFile) -> str | None:
    shard = re.search(r"-(\d{5})-of-(\d{5})\.", file.path.name)
    if not shard:
        return None
    return f"it is shard {int(shard[1])} of {int(shard[2])}: give the folder or the index instead"


def _empty_dit(config: WanConfig, prediction: Prediction) -> WanDiT:
    with torch.device("meta"):
        return WanDiT(config, prediction)


def _check_names(file: WeightsFile, keys: dict[str, str], dit: WanDiT) -> None:
    """Every parameter there, no other, each of the right shape; no tensor is read for it."""
    expected = dit.state_dict()
    missing = [name for name in expected if name not in keys]
    if missing:
        cause = _shard_cause(file) or "the file is incomplete or of another version"
        raise CheckpointError(
            f"{file.path}: {missing[0]} is missing{_others(missing)}; {cause}: get it again"
        )
    unexpected = [key for name, key in keys.items() if name not in expected]
    if unexpected:
        raise CheckpointError(
            f"{file.path}: {unexpected[0]} is unexpected{_others(unexpected)}; the file is of a "
            f"model with other parts than Wan 2.1 text-to-video: choose a checkpoint of that family"
        )
    for name, parameter in expected.items():
        shape = file.tensors[keys[name]].shape
        if shape != tuple(parameter.shape):
            raise CheckpointError(
                f"{file.path}: {keys[name]} is {shape}, the model needs {tuple(parameter.shape)}; "
                f"parts of two models are mixed, or the config is another one's"
            )


def _others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def drop_blocks(dit: WanDiT, blocks: range) -> None:
    """Leave a stage's blocks in a model, perhaps none; ValueError if they are not there."""
    total = len(dit.blocks)
    if blocks.step != 1 or blocks.start < 0 or blocks.stop > total:
        raise ValueError(f"blocks {blocks} are not a stage of a model with {total} blocks")
    for index in range(total):
        if index not in blocks:
            dit.blocks[index] = AbsentBlock()


def _fill(
    dit: WanDiT,
    file: WeightsFile,
    keys: dict[str, str],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    names = {keys[name]: name for name in dit.state_dict()}
    for key, stored in file.read(list(names)):
        module, _, leaf = names[key].rpartition(".")
        tensor = finite_copy(stored, device=device, dtype=dtype, file=file, key=key)
        dit.get_submodule(module).load_state_dict({leaf: tensor}, strict=False, assign=True)
