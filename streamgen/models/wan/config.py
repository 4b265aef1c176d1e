"""Shapes of a Wan-style causal DiT. Holds numbers only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WanConfig:
    """Sizes of one model; no defaults, because each checkpoint states its own.

    Published sizes: Wan 2.1 1.3B (dim 1536, ffn 8960, 12 heads, 30 blocks) and 14B (5120, 13824,
    40, 40); freq_dim 256, text_dim 4096, text_len 512 for both
    (https://github.com/Wan-Video/Wan2.1/tree/main/wan/configs).
    """

    in_dim: int
    """Channels that the patch embedding reads: latents, and a condition latent behind them."""
    out_dim: int
    """Latent channels that the head writes."""
    dim: int
    ffn_dim: int
    freq_dim: int
    """Channels of the sinusoidal time embedding, even."""
    text_dim: int
    text_len: int
    """Text tokens; shorter prompts are padded with zeros, and the padding is attended."""
    num_heads: int
    num_blocks: int
    patch_height: int
    patch_width: int
    eps: float

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"dim {self.dim} is not an even head dim times {self.num_heads} heads")
        if self.freq_dim % 2:
            raise ValueError(f"freq_dim {self.freq_dim} is odd")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def condition_dim(self) -> int:
        """Channels of the condition latent (0 for a model without one)."""
        return self.in_dim - self.out_dim
