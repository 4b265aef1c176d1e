"""The DiT against diffusers' WanTransformer3DModel, at random sizes, from a file in its layout.

Legend: B rows, F latent frames, C channels, H W latent height and width, M text tokens, D features.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from streamgen.models.full_sequence import forward_full
from streamgen.models.loading import load_dit
from streamgen.models.wan.config import WanConfig
from tests.checkpoint_files import SMALL
from tests.small_codecs import randomise

TOLERANCE = 2e-5  # float32, absolute
CONFIGS = (
    replace(SMALL, text_len=32),
    replace(SMALL, text_len=32, num_blocks=1, dim=256, num_heads=2, ffn_dim=160),
    replace(SMALL, text_len=32, in_dim=36),  # image to video: condition channels behind
)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("timestep", [999.0, 833.3333, 0.0])
def test_a_bidirectional_forward_equals_that_of_diffusers(
    tmp_path: Path, config: WanConfig, timestep: float
) -> None:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    theirs = WanTransformer3DModel(
        patch_size=(1, config.patch_height, config.patch_width),
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_dim,
        out_channels=config.out_dim,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_blocks,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=config.eps,
    ).eval()
    randomise(theirs, seed=7)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({name: one.contiguous() for name, one in theirs.state_dict().items()}, file)
    ours = load_dit(file, device=torch.device("cpu"), dtype=torch.float32, config=config)
    generator = torch.Generator().manual_seed(1)
    latents_BCFHW = torch.randn(2, config.in_dim, 3, 4, 6, generator=generator)
    text_BMD = torch.randn(2, config.text_len, config.text_dim, generator=generator)
    with torch.inference_mode():
        wanted_BCFHW = theirs(
            hidden_states=latents_BCFHW,
            timestep=torch.full((2,), timestep),
            encoder_hidden_states=text_BMD,
        ).sample
        found_BFCHW = forward_full(
            ours,
            latents_BCFHW.transpose(1, 2),
            torch.full((2, 3), timestep),
            text_BMD,
            positions_BF=torch.arange(3).expand(2, -1),
        )
    torch.testing.assert_close(found_BFCHW.transpose(1, 2), wanted_BCFHW, atol=TOLERANCE, rtol=0)
