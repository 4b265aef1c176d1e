"""LoRAs on a loaded DiT: several at once, their scales changed while a stream runs.

W = W0 + sum over LoRAs of scale * (alpha / r) * B A   (Hu et al. 2021, arXiv:2106.09685, sec. 4.1)

The sum is merged into the weights, so a forward costs what it did without LoRAs. Changing a scale
rewrites the touched weights in place from the kept W0: no file is read, nothing is built anew, and
graphs that were captured over the weights stay valid. Files are read in lora_file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from streamgen.errors import CheckpointError, ConfigError
from streamgen.models.loading import AbsentBlock
from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.names import block_of


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """Two factors; `up` has the output's channels first, `down` the rank."""

    parameter: str
    """Native name of what it changes."""
    down: Tensor
    up: Tensor
    scale: float
    """alpha / r (alpha / sqrt(r) where the file says rank-stabilised)."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.up.shape[0], *self.down.shape[1:])

    def add_to(self, weight: Tensor, scale: float) -> None:
        up, down = self.up.to(weight), self.down.to(weight)
        weight.flatten(1).addmm_(up.flatten(1), down.flatten(1), alpha=scale * self.scale)

    def to(self, device: torch.device) -> LowRank:
        return LowRank(self.parameter, self.down.to(device), self.up.to(device), self.scale)

    @property
    def size_bytes(self) -> int:
        return self.down.nbytes + self.up.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """A whole difference, as LoRA files carry for norms and biases."""

    parameter: str
    value: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def add_to(self, weight: Tensor, scale: float) -> None:
        weight.add_(self.value.to(weight), alpha=scale)

    def to(self, device: torch.device) -> Difference:
        return Difference(self.parameter, self.value.to(device))

    @property
    def size_bytes(self) -> int:
        return self.value.nbytes


Delta = LowRank | Difference


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """What one file changes, by native parameter names."""

    path: Path
    deltas: tuple[Delta, ...]


@dataclass(frozen=True, slots=True)
class _Touched:
    """One weight of the model with all that changes it, in the order of the LoRAs."""

    parameter: nn.Parameter
    base: Tensor
    terms: tuple[tuple[str, Delta], ...]


class LoraSet:
    """The LoRAs of one model; owns the unmerged weights that they touch. All scales start at 0.

    Memory: one more copy of every touched weight (all linear layers of the 1.3B in bfloat16:
    2.8 GB, of the 14B: 28 GB) and the factors (rank 256 on the 1.3B: 0.7 GB), both on `keep_on`;
    by default that is the model's device. Kept on the CPU they cost a transfer at each change of
    a scale instead. `size_bytes` says what they are here. While a weight is being rewritten, one
    float32 copy of it is on the model's device.
    """

    def __init__(
        self, model: WanDiT, loras: Mapping[str, Lora], *, keep_on: torch.device | None = None
    ) -> None:
        """Prepare `loras`, by the names under which scales are given later.

        Raises CheckpointError for a LoRA of another size or kind of model. Blocks that are not on
        this stage are passed over.
        """
        parameters = dict(model.named_parameters())
        terms: dict[str, list[tuple[str, Delta]]] = {}
        for lora_name, lora in loras.items():
            for delta in lora.deltas:
                if _fits(lora, delta, model, parameters):
                    device = keep_on or parameters[delta.parameter].device
                    terms.setdefault(delta.parameter, []).append((lora_name, delta.to(device)))
        self._touched = {
            name: _Touched(
                parameters[name],
                parameters[name].detach().to(keep_on or parameters[name].device, copy=True),
                tuple(own),
            )
            for name, own in terms.items()
        }
        self._scales = dict.fromkeys(loras, 0.0)
        self._merged = {name: (0.0,) * len(own) for name, own in terms.items()}

    @property
    def scales(self) -> Mapping[str, float]:
        return dict(self._scales)

    @property
    def size_bytes(self) -> int:
        """What is kept beside the model: unmerged weights and factors."""
        return sum(
            touched.base.nbytes + sum(delta.size_bytes for _, delta in touched.terms)
            for touched in self._touched.values()
        )

    @torch.no_grad()
    def apply(self, scales: Mapping[str, float]) -> None:
        """Merge at these scales; a LoRA that is left out has scale 0.

        Call it between two ticks. The weights depend on the scales alone, not on earlier ones:
        at scale 0 they are the loaded ones, bit for bit. Prompts' keys and values that were
        computed before keep the old weights until their prompt is set again.

        Raises ConfigError for a name that is not in the set or a scale that is not finite.
        """
        for name, scale in scales.items():
            if name not in self._scales:
                known = ", ".join(self._scales) or "none"
                raise ConfigError(f"there is no LoRA {name!r}; loaded: {known}")
            if not math.isfinite(scale):
                raise ConfigError(f"LoRA {name!r}: scale {scale} is not a finite number")
        wanted = {name: float(scales.get(name, 0.0)) for name in self._scales}
        for name, touched in self._touched.items():
            own = tuple(wanted[lora_name] for lora_name, _ in touched.terms)
            if own != self._merged[name]:
                _merge(touched, own)
                self._merged[name] = own
        self._scales = wanted


def _merge(touched: _Touched, scales: tuple[float, ...]) -> None:
    parameter, base = touched.parameter, touched.base
    if not any(scales):
        parameter.copy_(base)
        return
    exact = torch.promote_types(base.dtype, torch.float32)
    weight = base.to(parameter.device, exact, copy=True, memory_format=torch.contiguous_format)
    for (_, delta), scale in zip(touched.terms, scales, strict=True):
        if scale:
            delta.add_to(weight, scale)
    parameter.copy_(weight)


def _fits(lora: Lora, delta: Delta, model: WanDiT, parameters: Mapping[str, Tensor]) -> bool:
    """Whether the delta is for this stage; CheckpointError if it is for another model."""
    index = block_of(delta.parameter)
    if index is not None:
        if index >= len(model.blocks):
            raise CheckpointError(
                f"{lora.path}: changes block {index}, the model has {len(model.blocks)} blocks "
                f"(0 to {len(model.blocks) - 1}); choose a LoRA made for this size"
            )
        if isinstance(model.blocks[index], AbsentBlock):
            return False
    if delta.parameter not in parameters:
        raise CheckpointError(
            f"{lora.path}: changes {delta.parameter}, which the model does not have; the LoRA is "
            f"made for another kind of model (image-to-video?): choose one for this kind"
        )
    shape = tuple(parameters[delta.parameter].shape)
    if delta.shape != shape:
        raise CheckpointError(
            f"{lora.path}: {delta.parameter} is {delta.shape} there, {shape} in the model; LoRAs "
            f"of one size do not fit another: choose one made for dim {model.config.dim}"
        )
    return True
