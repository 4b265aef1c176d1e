"""Every kernel against its definition: error, time of both, bytes moved a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamgen.ops.flow_step import flow_step
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.qkv import QKNorms, Ring
from streamgen.ops.quantise import KVFormat
from streamgen.ops.rope import TokenGrid, rope_table

Timer = Callable[[Callable[[], object]], float]


@dataclass(frozen=True, slots=True)
class Size:
    """One model's tokens: rows, latent frames, token grid, heads."""

    rows: int
    frames: int
    grid: TokenGrid
    num_heads: int
    head_dim: int
    ring: int


def kernel_table(
    operations: Operations, size: Size, *, device: torch.device, dtype: torch.dtype, timer: Timer
) -> dict[str, dict[str, float]]:
    """Relative error, milliseconds of the definition and of the kernel, GB/s of the kernel."""
    table: dict[str, dict[str, float]] = {}
    for name, (run, num_bytes) in _cases(size, device, dtype).items():
        found, expected = run(operations), run(PLAIN)
        table[name] = {
            "relative_error": _error(found, expected),
            "definition_ms": 1e3 * timer(lambda run=run: run(PLAIN)),
            "kernel_ms": 1e3 * (seconds := timer(lambda run=run: run(operations))),
            "gb_per_s": num_bytes / seconds / 1e9,
        }
        table[name]["gain"] = table[name]["definition_ms"] / table[name]["kernel_ms"]
    return table


def _cases(
    size: Size, device: torch.device, dtype: torch.dtype
) -> dict[str, tuple[Callable[[Operations], Any], float]]:
    dim = size.num_heads * size.head_dim
    tokens = size.frames * size.grid.num_tokens
    numbers, item = size.rows * tokens * dim, dtype.itemsize

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    x, update, value = (draw(size.rows, tokens, dim) for _ in range(3))
    shift, scale = draw(size.rows, size.frames, dim), draw(size.rows, size.frames, dim)
    norms = QKNorms(draw(dim), draw(dim), 1e-6)
    positions = torch.arange(size.frames).expand(size.rows, -1)
    table = rope_table(positions, size.grid, size.head_dim, device)
    store = draw(2, size.rows, size.ring, size.grid.num_tokens, size.num_heads, size.head_dim)
    cells = torch.arange(size.frames, device=device).expand(size.rows, -1)
    ring = Ring(store[0], store[1], torch.arange(size.rows, device=device)[:, None], cells)
    keys = store[0].flatten(1, 2)
    key_table = rope_table(
        torch.arange(size.ring).expand(size.rows, -1), size.grid, size.head_dim, device
    )
    height, width = 2 * size.grid.height, 2 * size.grid.width  # of latents; 8 pixels each
    noisy, velocity, noise = (draw(size.rows, size.frames, 16, height, width) for _ in range(3))
    sigma = torch.full((size.rows,), 0.5, device=device)
    pictures = torch.randint(
        0, 256, (4, 8 * height, 8 * width, 3), device=device, dtype=torch.uint8
    )
    signed = (pictures.permute(0, 3, 1, 2) / 127.5 - 1).to(dtype)

    def step(operations: Operations) -> tuple[Tensor, Tensor]:
        return (operations.flow_step or flow_step)(noisy, velocity, noise, sigma, sigma)

    def there_and_back(operations: Operations, kind: KVFormat) -> Tensor:
        return operations.dequantise(*operations.quantise(keys, kind), kind, dtype)

    cases: dict[str, tuple[Callable[[Operations], Any], float]] = {
        "norm + modulation": (
            lambda ops: ops.norm_modulate(x, shift, scale, 1e-6), 2 * numbers * item),
        "gated residual": (lambda ops: ops.gated_residual(x, update, scale), 3 * numbers * item),
        "q/k norm + rope + ring write": (
            lambda ops: ops.norm_rotate_write(x, update, value, norms, table, ring, True),
            6 * numbers * item),
        "rotate window": (lambda ops: ops.rotate(keys, key_table), 2 * keys.numel() * item),
        "flow step": (step, 5 * noisy.numel() * item),
        "pictures in": (lambda ops: ops.to_signed(pictures, dtype), pictures.numel() * (1 + item)),
        "pictures out": (lambda ops: ops.to_bytes(signed), pictures.numel() * (1 + item)),
    }  # fmt: skip
    for kind in (KVFormat.FP8, KVFormat.INT8, KVFormat.INT4):
        moved = 2 * keys.numel() * (item + (0.5 if kind is KVFormat.INT4 else 1.0))
        cases[f"kv {kind.value}, there and back"] = (
            lambda ops, kind=kind: there_and_back(ops, kind), moved
        )  # fmt: skip
        codes, scales = PLAIN.quantise(keys, kind)
        cases[f"kv {kind.value}, read and rotate a window"] = (
            lambda ops, kind=kind, codes=codes, scales=scales: ops.dequantise_rotate(
                codes, scales, kind, dtype, key_table
            ),
            moved / 2,
        )  # fmt: skip
    return cases


def _error(found: Any, expected: Any) -> float:
    if isinstance(found, tuple):
        return max(_error(one, other) for one, other in zip(found, expected, strict=True))
    norm = float(expected.double().norm())
    return float((found.double() - expected.double()).norm()) / norm
