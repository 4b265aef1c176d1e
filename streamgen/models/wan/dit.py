"""The causal DiT of Wan 2.1, in three verbs: embed, block, head. Weights only.

Module names equal the native checkpoints' names, so a state dict loads as it is. What a token may
attend to, and where keys and values live, is the business of the LayerKV that `block` is given.

Legend: B rows, F latent frames, C channels, H W latent height and width, L tokens (F frames, rows,
columns; columns fastest), M text tokens, N heads, E head dim, D model dim.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as functional
from einops import rearrange
from torch import Tensor, nn

from streamgen.models.base import (
    Conditioning,
    DiTFacts,
    LayerKV,
    Prediction,
    ProjectedLayerKV,
    TextByBlock,
    TextKV,
)
from streamgen.models.wan.config import WanConfig
from streamgen.ops.modulation import rms_norm
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.qkv import QKNorms
from streamgen.ops.rope import TokenGrid


def sinusoid(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding, cosines first, computed in float64: [...] -> float32 [..., dim].

    Source: Ho et al. 2020, arXiv:2006.11239, appendix B; Wan 2.1 wan/modules/model.py
    sinusoidal_embedding_1d.
    """
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float64, device=timesteps.device) / half
    angles = timesteps.double()[..., None] * torch.pow(10_000.0, -exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


class RMSNorm(nn.Module):
    """RMSNorm over the full model dim."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x_BLD: Tensor) -> Tensor:
        return rms_norm(x_BLD, self.weight, self.eps)


class Projections(nn.Module):
    """q, k, v, o of one attention, with q and k normalised before the split into heads."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)

    def heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.num_heads, -1))

    def query(self, x_BLD: Tensor) -> Tensor:
        return self.heads(self.norm_q(self.q(x_BLD)))

    def key_value(self, x_BMD: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.norm_k(self.k(x_BMD))), self.heads(self.v(x_BMD))


class Block(nn.Module):
    """Self-attention and FFN, modulated per latent frame; text cross-attention between them.

    A text has a row for each row of tokens, or for each of as many equal parts of them.
    """

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.operations = PLAIN
        self.self_attn = Projections(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.cross_attn = Projections(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, config.dim),
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)

    def parts(self, modulation_BF6D: Tensor, dtype: torch.dtype) -> Tensor:
        """Shift, scale, gate of self-attention, then of the FFN: [B, F, 6, D]."""
        return (self.modulation[:, None] + modulation_BF6D).to(dtype)

    def forward(self, x_BLD: Tensor, parts_BF6D: Tensor, text: TextKV, kv: LayerKV) -> Tensor:
        operations = self.operations
        attn_shift, attn_scale, attn_gate, ffn_shift, ffn_scale, ffn_gate = parts_BF6D.unbind(2)
        attended = operations.norm_modulate(x_BLD, attn_shift, attn_scale, self.eps)
        y_BLNE = self._attend(attended, kv)
        x_BLD = operations.gated_residual(x_BLD, self.self_attn.o(y_BLNE.flatten(2)), attn_gate)
        cross = self.cross_attn
        q_BLD = operations.rms_norm(cross.q(self.norm3(x_BLD)), cross.norm_q.weight, self.eps)
        q_BLNE = cross.heads(q_BLD)
        q_BLNE = q_BLNE.reshape(text.k_BMNE.shape[0], -1, *q_BLNE.shape[2:])
        y_BLNE = operations.attention(q_BLNE, text.k_BMNE, text.v_BMNE)
        x_BLD = x_BLD + cross.o(y_BLNE.reshape(x_BLD.shape))
        y_BLD = self.ffn(operations.norm_modulate(x_BLD, ffn_shift, ffn_scale, self.eps))
        return operations.gated_residual(x_BLD, y_BLD, ffn_gate)

    def _attend(self, x_BLD: Tensor, kv: LayerKV) -> Tensor:
        """Self-attention; norm, rotation and write are one operation where the memory can."""
        attn = self.self_attn
        if isinstance(kv, ProjectedLayerKV):
            norms = QKNorms(attn.norm_q.weight, attn.norm_k.weight, attn.norm_q.eps)
            return kv.attend_projected(attn.q(x_BLD), attn.k(x_BLD), attn.v(x_BLD), norms)
        k_BLNE, v_BLNE = attn.key_value(x_BLD)
        return kv.attend(attn.query(x_BLD), k_BLNE, v_BLNE)


class Head(nn.Module):
    """Last norm, its modulation, the projection to patches, and the picture put together again."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        self.operations = PLAIN
        patch = config.patch_height * config.patch_width
        self.head = nn.Linear(config.dim, patch * config.out_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, hidden_BLD: Tensor, cond: Conditioning, grid: TokenGrid) -> Tensor:
        parts = self.modulation[:, None] + cond.time_BFD[:, :, None]
        shift_BFD, scale_BFD = parts.to(hidden_BLD.dtype).unbind(2)
        eps = self.config.eps
        patches = self.head(self.operations.norm_modulate(hidden_BLD, shift_BFD, scale_BFD, eps))
        return rearrange(
            patches,
            "b (f h w) (p q c) -> b f c (h p) (w q)",
            h=grid.height,
            w=grid.width,
            p=self.config.patch_height,
            q=self.config.patch_width,
        )


class WanDiT(nn.Module):
    """Wan 2.1's transformer for every size, the tiny one of the package included.

    Architecture: Wan team 2025, arXiv:2503.20314, sec. 4.2; per-frame timesteps as in Diffusion
    Forcing (arXiv:2407.01392) and Self-Forcing (arXiv:2506.08009).
    """

    def __init__(self, config: WanConfig, prediction: Prediction = Prediction.VELOCITY) -> None:
        """ValueError if change is predicted and the condition is not shaped as the latents are."""
        super().__init__()
        if prediction is Prediction.CHANGE and config.condition_dim != config.out_dim:
            raise ValueError(
                f"change from a condition of {config.condition_dim} channels cannot be added to "
                f"latents of {config.out_dim}"
            )
        self.config = config
        self.prediction = prediction
        patch = (1, config.patch_height, config.patch_width)
        self.patch_embedding = nn.Conv3d(config.in_dim, config.dim, patch, stride=patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, config.dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.dim, config.dim),
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.head = Head(config)

    @property
    def facts(self) -> DiTFacts:
        config = self.config
        return DiTFacts(
            num_blocks=config.num_blocks,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            latent_channels=config.out_dim,
            condition_channels=config.condition_dim,
            text_len=config.text_len,
            text_dim=config.text_dim,
            prediction=self.prediction,
        )

    def use(self, operations: Operations) -> None:
        """Run on these operations from now on; on the definitions until this is called."""
        for part in (*self.blocks, self.head):
            cast(Block | Head, part).operations = operations

    def grid(self, height: int, width: int) -> TokenGrid:
        """Token grid of a latent frame; ValueError if patches do not tile it."""
        config = self.config
        if height % config.patch_height or width % config.patch_width:
            raise ValueError(
                f"latents of {height}x{width} are not tiled by patches of "
                f"{config.patch_height}x{config.patch_width}"
            )
        return TokenGrid(height // config.patch_height, width // config.patch_width)

    def embed(self, latents_BFCHW: Tensor) -> Tensor:
        patches = self.patch_embedding(latents_BFCHW.transpose(1, 2))
        return rearrange(patches, "b d f h w -> b (f h w) d")

    def condition(self, timesteps_BF: Tensor, text: TextByBlock) -> Conditioning:
        dtype = self.patch_embedding.weight.dtype
        time_BFD = self.time_embedding(sinusoid(timesteps_BF, self.config.freq_dim).to(dtype))
        modulation = self.time_projection(time_BFD).unflatten(-1, (6, -1))
        parts = {
            index: block.parts(modulation, dtype)
            for index, block in enumerate(self.blocks)
            if isinstance(block, Block)
        }
        return Conditioning(time_BFD, modulation, text, parts)

    def embed_text(self, text_BMD: Tensor) -> Tensor:
        """Pad [B, M, text_dim] with zeros to text_len and bring it to the model's width."""
        missing = self.config.text_len - text_BMD.shape[1]
        if missing < 0:
            raise ValueError(f"{text_BMD.shape[1]} text tokens, {self.config.text_len} are allowed")
        return self.text_embedding(functional.pad(text_BMD, (0, 0, 0, missing)))

    def text_kv(self, index: int, text_BMD: Tensor) -> TextKV:
        """Keys and values of `embed_text`'s output for block `index`."""
        k_BMNE, v_BMNE = cast(Block, self.blocks[index]).cross_attn.key_value(text_BMD)
        return TextKV(k_BMNE, v_BMNE)

    def block(self, index: int, hidden_BLD: Tensor, cond: Conditioning, kv: LayerKV) -> Tensor:
        block = cast(Block, self.blocks[index])
        return block(hidden_BLD, cond.parts[index], cond.text[index], kv)
