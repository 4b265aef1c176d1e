"""The tiny codec: streaming equals whole, causality, geometry, the budget of its weights.

Shapes: B clips, T pixel frames, F latent frames, C channels, H W height and width.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, lists
from torch import Tensor

from streamgen.errors import ConfigError
from streamgen.models.codec_facts import CodecFacts
from streamgen.models.tiny.codec import FRAMES, TinyCodec, fold_pixels, unfold_pixels

TOLERANCE = 1e-4  # float32 sums of up to 3,072 products; other batch sizes take other kernels


def random_codec(seed: int) -> TinyCodec:
    """Every weight random, also those that start at zero; statistics not the identity."""
    generator = torch.Generator().manual_seed(seed)
    codec = TinyCodec()
    with torch.no_grad():
        for parameter in codec.parameters():
            fan_in = max(parameter[0].numel(), 16)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        codec.latent_mean_C.copy_(torch.randn(64, generator=generator))
        codec.latent_scale_C.copy_(torch.rand(64, generator=generator) + 0.5)
    return codec


def random_pixels(num_frames: int, *, seed: int, height: int = 32, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_frames, 3, height, width, generator=generator) * 2 - 1


@settings(max_examples=20, deadline=None)
@given(chunks=lists(integers(1, 3), min_size=1, max_size=4), seed=integers(0, 2**20))
@torch.inference_mode()
def test_chunks_make_the_same_latents_and_pixels_as_the_whole_clip(
    chunks: list[int], seed: int
) -> None:
    """Where a stream is cut changes neither direction, and both equal the batched form."""
    codec = random_codec(seed)
    pixels_TCHW = random_pixels(FRAMES * sum(chunks), seed=seed)
    latents_FCHW, _ = codec.encode(pixels_TCHW, codec.initial_state())
    decoded_TCHW, _ = codec.decode(latents_FCHW, codec.initial_state())

    encode_state, decode_state = codec.initial_state(), codec.initial_state()
    latents: list[Tensor] = []
    decoded: list[Tensor] = []
    for chunk_TCHW in pixels_TCHW.split([FRAMES * length for length in chunks]):
        chunk_FCHW, encode_state = codec.encode(chunk_TCHW, encode_state)
        chunk_decoded_TCHW, decode_state = codec.decode(chunk_FCHW, decode_state)
        latents.append(chunk_FCHW)
        decoded.append(chunk_decoded_TCHW)

    torch.testing.assert_close(torch.cat(latents), latents_FCHW, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(torch.cat(decoded), decoded_TCHW, atol=TOLERANCE, rtol=0)
    batched_TCHW = codec.decode_clips(codec.encode_clips(pixels_TCHW[None]))[0]
    torch.testing.assert_close(batched_TCHW.clamp(-1, 1), decoded_TCHW, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_a_latent_frame_changes_its_own_pixels_and_the_next_ones_only() -> None:
    """Causal, with a memory of exactly one latent frame."""
    codec = random_codec(1)
    latents_FCHW = torch.randn(4, 64, 2, 2, generator=torch.Generator().manual_seed(1))
    other_FCHW = latents_FCHW.clone()
    other_FCHW[1] += 1
    before_TCHW, _ = codec.decode(latents_FCHW, codec.initial_state())
    after_TCHW, _ = codec.decode(other_FCHW, codec.initial_state())
    changed_T = (before_TCHW - after_TCHW).abs().amax(dim=(1, 2, 3)) > TOLERANCE
    assert changed_T.tolist() == [4 <= frame < 12 for frame in range(16)]


@torch.inference_mode()
def test_clips_of_a_batch_do_not_see_each_other() -> None:
    """The last latent frame of one clip is not the past of the next one."""
    codec = random_codec(2)
    pixels_BTCHW = torch.stack([random_pixels(8, seed=seed) for seed in (1, 2, 3)])
    together_BTCHW = codec.decode_clips(codec.encode_clips(pixels_BTCHW))
    for clip_TCHW, decoded_TCHW in zip(pixels_BTCHW, together_BTCHW, strict=True):
        alone_TCHW = codec.decode_clips(codec.encode_clips(clip_TCHW[None]))[0]
        torch.testing.assert_close(decoded_TCHW, alone_TCHW, atol=TOLERANCE, rtol=0)


@given(side=integers(1, 4), groups=integers(1, 3), cells=integers(1, 3))
def test_unfolding_undoes_folding(side: int, groups: int, cells: int) -> None:
    pixels_TCHW = random_pixels(FRAMES * groups, seed=0, height=side * cells, width=2 * side)
    cells_GDHW = fold_pixels(pixels_TCHW, side=side)
    assert cells_GDHW.shape == (groups, 3 * FRAMES * side**2, cells, 2)
    assert torch.equal(unfold_pixels(cells_GDHW, side=side), pixels_TCHW)


def test_pixels_stay_in_range_and_shapes_follow_the_facts() -> None:
    codec = random_codec(3)
    with torch.inference_mode():
        latents_FCHW, _ = codec.encode(random_pixels(8, seed=0), codec.initial_state())
        decoded_TCHW, state = codec.decode(5 * latents_FCHW, codec.initial_state())
    assert latents_FCHW.shape == (2, codec.facts.latent_channels, *codec.facts.latent_size(32, 64))
    assert decoded_TCHW.shape == (codec.facts.num_pixel_frames(2, is_first=True), 3, 32, 64)
    assert decoded_TCHW.abs().max() <= 1
    assert state.previous_CHW is not None


def test_weights_take_at_most_6_mb_as_fp16() -> None:
    assert 2 * sum(value.numel() for value in TinyCodec().state_dict().values()) <= 6e6


def test_a_wrong_number_of_frames_is_refused() -> None:
    codec = TinyCodec()
    with pytest.raises(ValueError, match="6 pixel frames"):
        codec.encode(random_pixels(6, seed=0), codec.initial_state())


def test_a_size_that_does_not_fit_names_the_nearest_ones() -> None:
    codec = TinyCodec()
    with pytest.raises(ConfigError, match=r"100x130 pixels .* take 96x128 or 112x144"):
        codec.facts.latent_size(130, 100)
    with pytest.raises(ConfigError, match="take 16x16"):
        codec.facts.latent_size(0, 5)


@given(num_latent_frames=integers(1, 50))
def test_wans_first_chunk_has_three_pixel_frames_less(num_latent_frames: int) -> None:
    """T = 1 + 4 (F - 1) where a stream begins, 4 F later."""
    wan = CodecFacts(
        temporal_stride=4, spatial_stride=8, latent_channels=16, first_frame_is_single=True
    )
    assert wan.num_pixel_frames(num_latent_frames, is_first=True) == 4 * num_latent_frames - 3
    assert wan.num_pixel_frames(num_latent_frames, is_first=False) == 4 * num_latent_frames
