"""What a chunk's time goes into, by kinds of kernels."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

KINDS = (  # the first that matches; names of kernels of cuBLAS, cuDNN, ATen, Triton, and CPU ops
    ("attention", r"flash|fmha|attention|sage|sdpa|softmax"),
    ("convolutions", r"conv|wgrad|dgrad|implicit|nhwc|nchw|cudnn|upsample|pixel_shuffle"),
    ("matrix products", r"gemm|matmul|cublas|cutlass|nvjet|xmma|addmm|\bmm\b|bmm|linear|s\d+16"),
    ("our kernels", r"_norm_modulate|_gated|_rotate|_write|_flow|_quantise|_dequantise|_to_"),
    ("copies", r"memcpy|memset|copy|cat|index|gather|scatter|stack|fill|clone|contiguous"),
)
REST = "other kernels"
IDLE = "no kernel"
MOST = 10  # single kernels that are named


def kind_of(kernel: str) -> str:
    """Which of KINDS a kernel belongs to."""
    lowered = kernel.lower()
    return next((kind for kind, pattern in KINDS if re.search(pattern, lowered)), REST)


def spending(
    run_chunk: Callable[[], object], *, is_cuda: bool, chunk_ms: float, chunks: int = 2
) -> dict[str, Any]:
    """Milliseconds a chunk by kind, of the kernels (on a CPU: operators) that take most, and of
    nothing at all: `chunk_ms` less what all kernels take, below 0 where they overlap."""
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as taken:
        for _ in range(chunks):
            run_chunk()
    times_ms = {
        one.key: (one.self_device_time_total if is_cuda else one.self_cpu_time_total) / 1e3 / chunks
        for one in taken.key_averages()
    }
    by_kind = dict.fromkeys([*(kind for kind, _ in KINDS), REST], 0.0)
    for name, ms in times_ms.items():
        by_kind[kind_of(name)] += ms
    by_kind[IDLE] = chunk_ms - sum(times_ms.values())
    most = sorted(times_ms.items(), key=lambda item: -item[1])[:MOST]
    return {
        "spent_ms_a_chunk": {kind: round(ms, 4) for kind, ms in by_kind.items()},
        "profile_ms_a_chunk": {name[:70]: round(ms, 4) for name, ms in most},
    }
