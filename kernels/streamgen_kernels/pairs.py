"""Channels in pairs (2j, 2j + 1), as rotations and 4-bit codes take them.

Loads and stores are of channels side by side, so that a thread moves whole words; the pair is
taken apart and put together in registers.
"""

# Triton turns what is annotated constexpr, and whole kernels, into something else than is written:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_pairs(at, size, BLOCK: tl.constexpr):
    """Even and odd channels in float32, BLOCK of each; those from `size` on are 0."""
    lane = tl.arange(0, 2 * BLOCK)
    x = tl.load(at + lane, mask=lane < size, other=0.0).to(tl.float32)
    return tl.split(tl.reshape(x, (BLOCK, 2)))


@triton.jit
def store_pairs(at, even, odd, size, BLOCK: tl.constexpr):
    """The way back, in the dtype of the target."""
    lane = tl.arange(0, 2 * BLOCK)
    x = tl.reshape(tl.join(even, odd), (2 * BLOCK,))
    tl.store(at + lane, x.to(at.dtype.element_ty), mask=lane < size)
