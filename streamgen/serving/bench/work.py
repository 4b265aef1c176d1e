"""How much a forward must compute and move, counted from the weights, and the time that takes.

Multiplications and additions count as one each. Bytes are the fewest that can be moved: weights
once a forward, and each row's window of keys and values once; activations are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from streamgen.models.base import CausalDiT
from streamgen.models.quantised import Fp8Linear
from streamgen.serving.bench.machine import Peaks

ONCE_A_PROMPT = ("cross_attn.k", "cross_attn.v")  # not in a tick
ONCE_A_FRAME = ("time_embedding", "time_projection")  # one token each: nothing


@dataclass(frozen=True, slots=True)
class Work:
    """Of one forward."""

    flops: float
    num_bytes: float

    def limit_s(self, peaks: Peaks) -> float:
        """No forward can be faster: the larger of computing and moving."""
        return max(self.flops / peaks.tflops / 1e12, self.num_bytes / peaks.gb_per_s / 1e9)


def forward_work(dit: CausalDiT, *, rows: float, query_tokens: int, window_tokens: int) -> Work:
    """Work of `rows` rows with so many new tokens each, over so many tokens of the window."""
    if not isinstance(dit, nn.Module):
        return Work(0.0, 0.0)
    facts = dit.facts
    dim = facts.num_heads * facts.head_dim
    weights, weight_bytes = _tick_weights(dit)
    linear = 2 * weights * query_tokens
    attention = 4 * dim * query_tokens * (window_tokens + facts.text_len) * facts.num_blocks
    width = next(dit.parameters()).element_size()
    cache_bytes = 2 * facts.num_blocks * window_tokens * dim * width
    return Work(rows * (linear + attention), weight_bytes + rows * cache_bytes)


def _tick_weights(dit: nn.Module) -> tuple[int, int]:
    """Numbers of weights that every token meets, and their bytes."""
    count, num_bytes = 0, 0
    for name, module in dit.named_modules():
        weight = module.weight_OI if isinstance(module, Fp8Linear) else None
        if isinstance(module, nn.Linear | nn.Conv3d):
            weight = module.weight
        is_used = not name.endswith(ONCE_A_PROMPT)
        if (
            is_used
            and not name.startswith((*ONCE_A_FRAME, "text_embedding"))
            and weight is not None
        ):
            count += weight.numel()
            num_bytes += weight.numel() * weight.element_size()
    return count, num_bytes
