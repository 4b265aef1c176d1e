"""Which attention is fastest here: every one that is installed is tried, and measured times decide.

An attention that is missing, fails, or is too far from the definition is left out with a reason; it
is an error only if none is left. Chosen once, at start.

Legend: B rows, L query tokens, M key tokens, N heads, E head dim.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from streamgen.clock import Clock
from streamgen.errors import CapacityError
from streamgen.ops.attention import attention
from streamgen.ops.operations import Attention

REPEATS = 10
LARGEST_ERROR = 0.03  # of the output, relative, against float32: twice what bfloat16 itself has


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """The sizes that self-attention has most of the time."""

    rows: int
    query_tokens: int
    key_tokens: int
    num_heads: int
    head_dim: int

    @property
    def flops(self) -> float:
        tokens = self.rows * self.query_tokens * self.key_tokens
        return 4.0 * tokens * self.num_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one attention: a time, or the reason why there is none."""

    name: str
    seconds: float | None
    reason: str | None


def candidates() -> dict[str, Callable[[], Attention]]:
    """Every attention known, by name; making one may raise ImportError or anything else."""
    return {
        "torch": lambda: attention,
        "torch cudnn": lambda: _sdpa(SDPBackend.CUDNN_ATTENTION),
        "torch flash": lambda: _sdpa(SDPBackend.FLASH_ATTENTION),
        "torch memory-efficient": lambda: _sdpa(SDPBackend.EFFICIENT_ATTENTION),
        "xformers": _xformers,
        "flash-attention 3": _flash_3,
        "flash-attention 2": _flash_2,
        "sageattention": _sage,
    }


def try_attentions(
    shape: AttentionShape,
    *,
    device: torch.device,
    dtype: torch.dtype,
    clock: Clock,
    synchronise: Callable[[], None],
) -> tuple[Attention, tuple[Trial, ...]]:
    """The fastest attention for a shape, and what came of all, fastest first.

    Raises CapacityError if not even torch's own could be carried out.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(tokens: int) -> Tensor:
        size = (shape.rows, tokens, shape.num_heads, shape.head_dim)
        return torch.randn(size, generator=generator).to(device, dtype)

    q_BLNE, k_BMNE, v_BMNE = (
        draw(shape.query_tokens),
        draw(shape.key_tokens),
        draw(shape.key_tokens),
    )
    expected = attention(q_BLNE.float(), k_BMNE.float(), v_BMNE.float())
    made: dict[str, Attention] = {}
    trials: list[Trial] = []
    for name, make in candidates().items():
        try:
            attend = make()
            found = attend(q_BLNE, k_BMNE, v_BMNE)
            synchronise()
        except Exception as error:  # whatever a foreign package raises, the others are still there
            trials.append(Trial(name, None, _first_line(error)))
            continue
        error = float((found.float() - expected).norm() / expected.norm())
        if not error <= LARGEST_ERROR:
            trials.append(Trial(name, None, f"relative error {error:.3f} is over {LARGEST_ERROR}"))
            continue
        made[name] = attend
        seconds = _median_s(lambda: attend(q_BLNE, k_BMNE, v_BMNE), clock, synchronise)  # noqa: B023
        trials.append(Trial(name, seconds, None))
    if not made:
        raise CapacityError(
            f"no attention can be carried out on {device} for {shape.rows} rows of "
            f"{shape.query_tokens} tokens over {shape.key_tokens} ({trials[0].name}: "
            f"{trials[0].reason}); lower picture.height, picture.width or cache.ring"
        )
    trials.sort(key=lambda trial: (trial.seconds is None, trial.seconds or 0.0))
    return made[trials[0].name], tuple(trials)


def _median_s(run: Callable[[], object], clock: Clock, synchronise: Callable[[], None]) -> float:
    times: list[float] = []
    for _ in range(REPEATS + 2):
        began_s = clock.now()
        run()
        synchronise()
        times.append(clock.now() - began_s)
    return statistics.median(times[2:])


def _sdpa(backend: SDPBackend) -> Attention:
    def attend(q_BLNE: Tensor, k_BMNE: Tensor, v_BMNE: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return attention(q_BLNE, k_BMNE, v_BMNE)

    return attend


def _xformers() -> Attention:
    ops: Any = importlib.import_module("xformers.ops")
    return lambda q, k, v: ops.memory_efficient_attention(q, k, v)


def _flash_2() -> Attention:
    flash: Any = importlib.import_module("flash_attn")
    return lambda q, k, v: flash.flash_attn_func(q, k, v)


def _flash_3() -> Attention:
    flash: Any = importlib.import_module("flash_attn_interface")

    def attend(q_BLNE: Tensor, k_BMNE: Tensor, v_BMNE: Tensor) -> Tensor:
        out = flash.flash_attn_func(q_BLNE, k_BMNE, v_BMNE)
        return out[0] if isinstance(out, tuple) else out  # older ones return the sums, too

    return attend


def _sage() -> Attention:
    sage: Any = importlib.import_module("sageattention")
    return lambda q, k, v: sage.sageattn(q, k, v, tensor_layout="NHD")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
