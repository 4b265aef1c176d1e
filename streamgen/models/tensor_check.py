"""Whether a state dict fits a model: every tensor there, no other, each dense and of its shape.

Knows names and shapes only; opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from streamgen.errors import CheckpointError


def check_tensors(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, torch.Size],
    *,
    source: str,
    cause: str,
    shown_names: Mapping[str, str] | None = None,
) -> None:
    """Raise CheckpointError for the first tensor that is missing, unexpected or unusable.

    `source` is what the tensors came from (a path), `cause` what a misfit most likely means.
    `shown_names` gives the names under which the source itself knows the tensors, where they were
    renamed.
    """
    shown = shown_names or {}
    for name in sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(f"{source}: {shown.get(name, name)} is missing; {cause}")
    for name in sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(f"{source}: {shown.get(name, name)} is unexpected; {cause}")
    for name, tensor in tensors.items():
        where = f"{source}: {shown.get(name, name)}"
        if tensor.layout is not torch.strided or not tensor.dtype.is_floating_point:
            raise CheckpointError(
                f"{where} is {tensor.layout} of {tensor.dtype}; weights are dense floats: the file"
                f" is damaged or quantised"
            )
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"{where} is {tuple(tensor.shape)}, the model needs {tuple(expected[name])};"
                f" {cause}"
            )
