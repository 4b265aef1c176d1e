"""How much memory the parts of a Wan model take, from their sizes alone. Arithmetic; loads nothing.

Weights, KV cache, prompts and the codecs' streaming states are exact (tests compare them with real
ones); what a forward takes for a moment is an estimate, and is called `work`.

Legend: H W height and width of latents, S tokens of a latent frame.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.tae import TaeConfig
from streamgen.models.wan.vae_config import VaeConfig

MEMORY_FRAMES = 2  # that a causal convolution with a kernel of 3 remembers
TAE_MEM_BLOCKS = 3  # at each resolution
PICTURES = 4  # pixel frames that a codec works on at a time: those of one latent frame
LIVE_FEATURES = 6  # full-size feature maps of PICTURES that a codec holds at once (estimate)
LIVE_TOKENS = 14  # times dim numbers a token that a block holds beside its FFN's (estimate)
ROTATED_BYTES = 14  # a number of a cached key: read, turned in float32, written (estimate)
SCALE_BYTES = 4  # of a float32
CUDA_BYTES = 700_000_000  # context, cuBLAS and cuDNN workspaces (estimate)


@dataclass(frozen=True, slots=True)
class LatentPicture:
    """Height and width of a latent frame."""

    height: int
    width: int

    @property
    def num_latents(self) -> int:
        return self.height * self.width


def dit_params(config: WanConfig) -> int:
    """Parameters of a DiT."""
    dim, patch = config.dim, config.patch_height * config.patch_width
    attention = 4 * (dim * dim + dim) + 2 * dim
    ffn = 2 * dim * config.ffn_dim + config.ffn_dim + dim
    block = 2 * attention + ffn + 2 * dim + 6 * dim
    embeddings = config.in_dim * patch * dim + dim
    embeddings += (config.text_dim + dim + 2) * dim + (config.freq_dim + dim + 2) * dim
    embeddings += 6 * dim * dim + 6 * dim
    head = (dim + 1) * patch * config.out_dim + 2 * dim
    return config.num_blocks * block + embeddings + head


def dit_bytes(config: WanConfig, *, item_bytes: int, has_small_linears: bool) -> int:
    """Memory of a DiT's weights; small linears: those of the blocks in a byte, and a float32 scale
    for each of their channels."""
    full = dit_params(config) * item_bytes
    if not has_small_linears:
        return full
    dim, ffn = config.dim, config.ffn_dim
    numbers = config.num_blocks * (8 * dim * dim + 2 * dim * ffn)
    channels = config.num_blocks * (8 * dim + ffn + dim)
    return full - numbers * (item_bytes - 1) + channels * SCALE_BYTES


def prompt_numbers(config: WanConfig) -> int:
    """Numbers of one prompt's keys and values in all blocks."""
    return 2 * config.num_blocks * config.text_len * config.dim


def dit_work_bytes(
    config: WanConfig,
    *,
    new_tokens: int,
    read_tokens: int,
    rotates_late: bool,
    reads_codes: bool,
    item_bytes: int,
) -> int:
    """What a forward takes beside weights and cache (estimate).

    `new_tokens` of all its rows, `read_tokens` that all its rows attend to; codes are turned back
    into full keys and values, a layer at a time.
    """
    live = new_tokens * (2 * config.ffn_dim + LIVE_TOKENS * config.dim) * item_bytes
    decoded = 2 * read_tokens * config.dim * item_bytes * reads_codes
    return live + decoded + read_tokens * config.dim * ROTATED_BYTES * rotates_late


def vae_params(config: VaeConfig) -> int:
    """Parameters of a Wan VAE."""
    dims = [config.base_dim * mult for mult in (1, *config.dim_mult)]
    latent = config.latent_channels
    encoder = _conv(3, dims[0]) + _middle(dims[-1]) + dims[-1] + _conv(dims[-1], 2 * latent)
    for index, (before, after) in enumerate(itertools.pairwise(dims)):
        encoder += _residual(before, after) + (config.num_res_blocks - 1) * _residual(after, after)
        if index < len(config.temporal_downsample):
            encoder += _conv2d(after, after)
            encoder += config.temporal_downsample[index] * (3 * after * after + after)
    dims = [config.base_dim * mult for mult in (config.dim_mult[-1], *reversed(config.dim_mult))]
    decoder = _conv(latent, dims[0]) + _middle(dims[0]) + dims[-1] + _conv(dims[-1], 3)
    upsamples = tuple(reversed(config.temporal_downsample))
    for index, (before, after) in enumerate(itertools.pairwise(dims)):
        entered = before // 2 if index else before
        decoder += _residual(entered, after) + config.num_res_blocks * _residual(after, after)
        if index < len(upsamples):
            decoder += _conv2d(after, after // 2)
            decoder += upsamples[index] * (6 * after * after + 2 * after)
    return encoder + decoder + (2 * latent + 1) * 2 * latent + (latent + 1) * latent


def vae_encoder_state(config: VaeConfig, picture: LatentPicture) -> int:
    """Numbers that one stream's VAE encoder remembers."""
    dims = [config.base_dim * mult for mult in (1, *config.dim_mult)]
    scale = len(config.temporal_downsample)
    features = 3 * 4**scale  # the first convolution sees pixels
    for index, (before, after) in enumerate(itertools.pairwise(dims)):
        size = 4 ** (scale - index)
        features += (before + (2 * config.num_res_blocks - 1) * after) * size
        if index < scale and config.temporal_downsample[index]:
            features += after * size // 4 / MEMORY_FRAMES  # remembers one frame, after halving
    features += 5 * dims[-1]
    return int(MEMORY_FRAMES * features * picture.num_latents)


def vae_decoder_state(config: VaeConfig, picture: LatentPicture) -> int:
    """Numbers that one stream's VAE decoder remembers."""
    dims = [config.base_dim * mult for mult in (config.dim_mult[-1], *reversed(config.dim_mult))]
    upsamples = tuple(reversed(config.temporal_downsample))
    features = config.latent_channels + 4 * dims[0]
    for index, (before, after) in enumerate(itertools.pairwise(dims)):
        size = 4**index
        entered = before // 2 if index else before
        features += (entered + (2 * config.num_res_blocks + 1) * after) * size
        if index < len(upsamples) and upsamples[index]:
            features += after * size
    features += dims[-1] * 4 ** len(upsamples)
    return MEMORY_FRAMES * features * picture.num_latents


def vae_work(config: VaeConfig, picture: LatentPicture) -> int:
    """Numbers that the VAE holds for a moment (estimate)."""
    pixels = picture.num_latents * 4 ** len(config.temporal_downsample)
    return LIVE_FEATURES * config.base_dim * PICTURES * pixels


def tae_params(config: TaeConfig) -> int:
    """Parameters of a tiny autoencoder."""
    width = config.encoder_width
    encoder = _conv2d(3, width) + _conv2d(width, config.latent_channels)
    for time_stride in (2, 2, 1):
        encoder += time_stride * width * width + 9 * width * width
        encoder += TAE_MEM_BLOCKS * _mem_block(width)
    widths = config.decoder_widths
    decoder = _conv2d(config.latent_channels, widths[0]) + _conv2d(widths[3], 3)
    for width, following, time_stride in zip(widths[:3], widths[1:], (1, 2, 2), strict=True):
        decoder += TAE_MEM_BLOCKS * _mem_block(width)
        decoder += time_stride * width * width + 9 * width * following
    return encoder + decoder


def tae_encoder_state(config: TaeConfig, picture: LatentPicture) -> int:
    """Numbers that one stream's TAEHV encoder remembers: 3 blocks at 4, 2 and 1 times latents."""
    return TAE_MEM_BLOCKS * config.encoder_width * (16 + 4 + 1) * picture.num_latents


def tae_decoder_state(config: TaeConfig, picture: LatentPicture) -> int:
    """Numbers that one stream's TAEHV decoder remembers."""
    sizes = zip(config.decoder_widths[:3], (1, 4, 16), strict=True)
    return TAE_MEM_BLOCKS * sum(width * size for width, size in sizes) * picture.num_latents


def tae_work(config: TaeConfig, picture: LatentPicture) -> int:
    """Numbers that the tiny autoencoder holds for a moment, a latent frame (estimate)."""
    width = max(config.encoder_width, config.decoder_widths[3])
    return LIVE_FEATURES * width * PICTURES * picture.num_latents * 64


def _conv(num_in: int, num_out: int) -> int:
    return 27 * num_in * num_out + num_out


def _conv2d(num_in: int, num_out: int) -> int:
    return 9 * num_in * num_out + num_out


def _residual(num_in: int, num_out: int) -> int:
    """Two norms, two convolutions, and a shortcut where the width changes."""
    shortcut = num_in * num_out + num_out if num_in != num_out else 0
    return num_in + _conv(num_in, num_out) + num_out + _conv(num_out, num_out) + shortcut


def _middle(dim: int) -> int:
    """Two residual blocks, and attention between them: norm, q k v, projection."""
    return 2 * _residual(dim, dim) + dim + (dim + 1) * 3 * dim + (dim + 1) * dim


def _mem_block(width: int) -> int:
    return _conv2d(2 * width, width) + 2 * _conv2d(width, width)
