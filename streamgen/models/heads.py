"""Which heads ignore the past, and a DiT whose heads are put in order of it.

A file of `scripts/calibrate_heads.py` names, for each block, the heads that give nearly all their
attention to their own chunk: the dummy heads of Guo et al. 2026, arXiv:2601.20499. They are put
behind the others in every block, which changes nothing but the order of channels inside the
attention: then both kinds are neighbours in the cache, and each is read where it lies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamgen.errors import CheckpointError
from streamgen.models.base import CausalDiT, DiTFacts

FORMAT = "streamgen-heads/1"


@dataclass(frozen=True, slots=True)
class PresentHeads:
    """The heads of every block that see their own chunk only."""

    num_heads: int
    by_block: tuple[tuple[int, ...], ...]

    @property
    def num_past(self) -> tuple[int, ...]:
        """How many heads of each block look at the window."""
        return tuple(self.num_heads - len(heads) for heads in self.by_block)


def choose_present(shares: Tensor, share: float) -> PresentHeads:
    """That share of all heads, those first that keep most of their attention in the chunk.

    `shares` are those of `streamgen.cache.heads`, [block, head].
    """
    num_blocks, num_heads = shares.shape
    count = round(share * shares.numel())
    chosen = shares.flatten().argsort(descending=True, stable=True)[:count].tolist()
    by_block = tuple(
        tuple(sorted(one % num_heads for one in chosen if one // num_heads == block))
        for block in range(num_blocks)
    )
    return PresentHeads(num_heads, by_block)


def write_heads(path: Path, heads: PresentHeads, facts: dict[str, Any]) -> None:
    """With `facts` about how they were found, for people."""
    stored = {
        "format": FORMAT,
        "num_heads": heads.num_heads,
        "present": [list(one) for one in heads.by_block],
        **facts,
    }
    path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def read_heads(path: Path, facts: DiTFacts) -> PresentHeads:
    """CheckpointError if the file is unreadable or of a model of other sizes."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError(f"its format is {stored['format']!r}")
        found = PresentHeads(
            int(stored["num_heads"]),
            tuple(tuple(sorted({int(head) for head in block})) for block in stored["present"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not a file of scripts/calibrate_heads.py ({error}); make one for this model"
        ) from error
    sizes = (len(found.by_block), found.num_heads)
    is_inside = all(0 <= head < found.num_heads for block in found.by_block for head in block)
    if sizes != (facts.num_blocks, facts.num_heads) or not is_inside:
        raise CheckpointError(
            f"{path}: is of a model of {sizes[0]} blocks and {sizes[1]} heads, this one has "
            f"{facts.num_blocks} and {facts.num_heads}; calibrate this one"
        )
    return found


def order_heads(dit: CausalDiT, heads: PresentHeads) -> None:
    """Put the heads that look at the past first, in every block; the DiT computes what it did."""
    assert isinstance(dit, nn.Module), "there is nothing to put in order"
    blocks = dit.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    head_dim = dit.facts.head_dim
    for block, present in zip(blocks, heads.by_block, strict=True):
        past = [head for head in range(heads.num_heads) if head not in present]
        order_D = torch.tensor([*past, *present])[:, None] * head_dim + torch.arange(head_dim)
        _order(block.get_submodule("self_attn"), order_D.flatten())


def _order(attention: nn.Module, order_D: Tensor) -> None:
    """Channels of q, k, v and of the norms, and what the output reads."""
    for name in ("q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias",
                 "norm_q.weight", "norm_k.weight"):  # fmt: skip
        parameter = attention.get_parameter(name)
        parameter.data = parameter.data[order_D.to(parameter.device)]
    weight = attention.get_parameter("o.weight")
    weight.data = weight.data[:, order_D.to(weight.device)].contiguous()
