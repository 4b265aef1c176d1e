"""`einops.rearrange` for machines that lack einops: the patterns that this repository uses.

Named axes and groups in parentheses; no ellipsis, no ones, no repetition.
"""

from __future__ import annotations

import math
import re
import sys
from types import ModuleType

from torch import Tensor


def rearrange(tensor: Tensor, pattern: str, **sizes: int) -> Tensor:
    """Split, permute and join axes as `pattern` says; ValueError if shapes do not fit it."""
    left, right = (_groups(side) for side in pattern.split("->"))
    if len(left) != tensor.dim():
        raise ValueError(f"{pattern!r} has {len(left)} axes, the tensor {tensor.dim()}")
    known = dict(sizes)
    for group, size in zip(left, tensor.shape, strict=True):
        _complete(group, size, known, pattern)
    names = [name for group in left for name in group]
    split = tensor.reshape([known[name] for name in names])
    moved = split.permute([names.index(name) for group in right for name in group])
    return moved.reshape([math.prod(known[name] for name in group) for group in right])


def _groups(side: str) -> list[list[str]]:
    return [(inner or single).split() for inner, single in re.findall(r"\(([^)]*)\)|(\w+)", side)]


def _complete(group: list[str], size: int, known: dict[str, int], pattern: str) -> None:
    unknown = [name for name in group if name not in known]
    rest = size // math.prod(known[name] for name in group if name in known)
    if len(unknown) == 1:
        known[unknown[0]] = rest
    if len(unknown) > 1 or math.prod(known[name] for name in group) != size:
        raise ValueError(f"an axis of {size} does not divide as {pattern!r} says")


def provide_einops() -> str:
    """Make `from einops import rearrange` work; returns where it comes from."""
    try:
        import einops
    except ImportError:
        module = ModuleType("einops")
        module.__dict__["rearrange"] = rearrange
        sys.modules["einops"] = module
        return "carried"
    return f"einops {einops.__version__}"
