"""How wide a program is. Host integers only."""

from __future__ import annotations

CHANNELS_A_WARP = 512  # 16 numbers a thread: two or four 16-byte loads, few enough registers


def num_warps_for(block: int) -> int:
    """Warps of a program that holds `block` numbers of one row: 1 to 16, a power of two."""
    return max(1, min(16, block // CHANNELS_A_WARP))
