"""What work costs on some hardware: measured, or computed from public arithmetic and marked so.

Computed ones: a forward of one chunk of Wan 2.1 at 480x832 with a window of six latent frames takes
6.7 TFLOP at 1.3B and 49.9 TFLOP at 14B; half of 989 TFLOP/s dense bf16 is assumed for H100 and H200
alike (they differ in memory, not in arithmetic), 2 ms of launches a forward, and a full codec that
takes 30 % of what one step of the 1.3B model takes beside it (StreamDiffusionV2, arXiv:2511.07399,
reports that share), half for each direction; a tiny codec a tenth of that (TAEHV).

That share makes the codec far cheaper than rates that were published: MotionStream
(arXiv:2511.01266) goes from 16.85 to 29.5 pictures a second on an H100 at 480p by decoding with a
tiny codec, so the full one takes 25.4 ms a picture more to decode. The `-full-vae` profiles take
this number, and half of it to encode, which is assumed. They are what a plan for several GPUs is to
be held against: StreamDiffusionV2 publishes the same rate for 1.3B and 14B on four of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamgen.errors import ConfigError
from streamgen.scheduling.latency import Costs, LatencyFit

H100_FLOPS = 0.5 * 989e12
LAUNCH_S = 0.002
CODEC_S_A_PICTURE = 0.3 / 0.7 * 2 * 6.7e12 / H100_FLOPS / 4 / 2
TINY_CODEC = 0.1
PUBLISHED_DECODE_S = 1 / 16.85 - 1 / 29.5
ENCODE_SHARE = 0.5  # of the seconds of decoding, assumed
ROW_GB = {"1.3b": 9360 * 30 * 1536 * 4 / 1e9, "14b": 9360 * 40 * 5120 * 4 / 1e9}


@dataclass(frozen=True, slots=True)
class DividedModel:
    """What of a model lies on a GPU, and what travels between two."""

    num_blocks: int
    weights_gb: float
    """Of all blocks."""
    row_gb: float
    """A cache row, all blocks."""
    hidden_mb: float
    """Hidden states of one row."""
    latent_mb: float
    codec_gb: float
    """Weights and work of the codec."""


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """One engine's hardware and model."""

    name: str
    origin: str
    """"measured" or "computed", and from what."""
    costs: Costs
    cache_rows: int
    """Cache rows that there is memory for."""
    clip_frames: int
    """Pictures of a chunk."""
    steps: int
    """Steps at full quality."""
    has_tiny_codec: bool
    smallest_picture: float
    memory_gb: float
    """Of one GPU."""
    picture: tuple[int, int]
    """Height and width that the costs are for."""
    model: DividedModel | None = None
    """None where nothing is divided."""


WAN_TOKENS = 30 * 52  # of a latent frame at 480x832
WAN_MODELS = {  # blocks, width, parameters: Wan-Video/Wan2.1, wan/configs; bf16
    size: DividedModel(
        num_blocks=num_blocks,
        weights_gb=2 * num_params / 1e9,
        row_gb=ROW_GB[size],
        hidden_mb=WAN_TOKENS * width * 2 / 1e6,
        latent_mb=16 * 60 * 104 * 2 / 1e6,
        codec_gb=3.0,  # 0.25 GB of weights, the rest state and work, by serving.memory's estimate
    )
    for size, num_blocks, width, num_params in (
        ("1.3b", 30, 1536, 1.42e9),
        ("14b", 40, 5120, 14.29e9),
    )
}


def _wan(
    name: str,
    size: str,
    tflop: float,
    memory_gb: float,
    weights_gb: float,
    *,
    encode_s: float = CODEC_S_A_PICTURE,
    decode_s: float = CODEC_S_A_PICTURE,
) -> HardwareProfile:
    encode, decode = LatencyFit(0.001, encode_s), LatencyFit(0.001, decode_s)
    return HardwareProfile(
        name=name,
        origin="computed",
        costs=Costs(
            LatencyFit(LAUNCH_S, tflop * 1e12 / H100_FLOPS),
            encode,
            decode,
            tiny_codec=TINY_CODEC,
        ),
        cache_rows=int((memory_gb - weights_gb) / ROW_GB[size]),
        clip_frames=4,
        steps=2,
        has_tiny_codec=True,
        smallest_picture=0.5,
        memory_gb=memory_gb,
        picture=(480, 832),
        model=WAN_MODELS[size],
    )


def _wan_full_vae(size: str, tflop: float, weights_gb: float) -> HardwareProfile:
    return _wan(
        f"h100-{size}-full-vae",
        size,
        tflop,
        80,
        weights_gb,
        encode_s=ENCODE_SHARE * PUBLISHED_DECODE_S,
        decode_s=PUBLISHED_DECODE_S,
    )


def at_size(profile: HardwareProfile, pixels_share: float) -> HardwareProfile:
    """The profile for pictures of that many times its pixels: all but launches and weights grow
    alike. Attention grows faster than that, which is not counted."""
    costs, model = profile.costs, profile.model

    def scaled(fit: LatencyFit) -> LatencyFit:
        return replace(fit, per_unit_s=fit.per_unit_s * pixels_share)

    return replace(
        profile,
        costs=replace(
            costs,
            denoise=scaled(costs.denoise),
            encode=scaled(costs.encode),
            decode=scaled(costs.decode),
        ),
        model=model
        and replace(
            model,
            row_gb=model.row_gb * pixels_share,
            hidden_mb=model.hidden_mb * pixels_share,
            latent_mb=model.latent_mb * pixels_share,
            codec_gb=model.codec_gb * pixels_share,
        ),
    )


PROFILES = {
    profile.name: profile
    for profile in (
        HardwareProfile(
            name="tiny-cpu",
            origin="measured: 2 cores of an AMD EPYC, benchmarks/tiny-cpu-speed.json at 825ce3b",
            costs=Costs(
                LatencyFit(0.0037, 0.0026), LatencyFit(0.0, 0.00034), LatencyFit(0.0, 0.00093)
            ),
            cache_rows=64,
            clip_frames=4,
            steps=4,
            has_tiny_codec=False,
            smallest_picture=1.0,
            memory_gb=16.0,
            picture=(128, 128),
            model=DividedModel(
                num_blocks=6,
                weights_gb=0.022,
                row_gb=0.0008,
                hidden_mb=0.0164,
                latent_mb=0.0164,
                codec_gb=0.05,
            ),
        ),
        _wan("h100-1.3b", "1.3b", 6.7, 80, 16),
        _wan("h200-1.3b", "1.3b", 6.7, 141, 16),
        _wan("h100-14b", "14b", 49.9, 80, 40),
        _wan("h200-14b", "14b", 49.9, 141, 40),
        _wan_full_vae("1.3b", 6.7, 16),
        _wan_full_vae("14b", 49.9, 40),
    )
}


def profile_of(name: str) -> HardwareProfile:
    """The profile of a name; ConfigError lists those that there are."""
    if name not in PROFILES:
        raise ConfigError(f"no hardware profile {name!r}; there are {', '.join(sorted(PROFILES))}")
    return PROFILES[name]
