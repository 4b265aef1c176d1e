"""What work costs on some hardware: measured, or computed from public arithmetic and marked so.

Computed ones: a forward of one chunk of Wan 2.1 at 480x832 with a window of six latent frames takes
6.7 TFLOP at 1.3B and 49.9 TFLOP at 14B; half of 989 TFLOP/s dense bf16 is assumed for H100 and H200
alike (they differ in memory, not in arithmetic), and 2 ms of launches a forward. What their codec
costs says `codec_costs`: the full Wan VAE, as presets have it, or in `-tiny-codec` profiles TAEHV.
Simulations and plans for several GPUs read the same numbers; a test holds those plans to the rates
that StreamDiffusionV2 (arXiv:2511.07399) publishes for 1.3B and 14B on four H100.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamgen.errors import ConfigError
from streamgen.scheduling.codec_costs import TAEHV, TINY_SHARE, WAN_VAE, CodecCosts
from streamgen.scheduling.latency import Costs, LatencyFit

H100_FLOPS = 0.5 * 989e12
LAUNCH_S = 0.002
FORWARD_TFLOP = {"1.3b": 6.7, "14b": 49.9}
GPU_GB = {"h100": 80.0, "h200": 141.0}
RESERVED_GB = {"1.3b": 16.0, "14b": 40.0}  # of weights, codec and work, before any cache row
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


def _wan(gpu: str, size: str, codec: CodecCosts) -> HardwareProfile:
    is_tiny = codec is TAEHV
    model, memory_gb = WAN_MODELS[size], GPU_GB[gpu]
    return HardwareProfile(
        name=f"{gpu}-{size}{'-tiny-codec' if is_tiny else ''}",
        origin=f"computed: arithmetic of the model, published seconds of the {codec.name}",
        costs=Costs(
            LatencyFit(LAUNCH_S, FORWARD_TFLOP[size] * 1e12 / H100_FLOPS),
            codec.encode,
            codec.decode,
            tiny_codec=1.0 if is_tiny else TINY_SHARE,
        ),
        cache_rows=int((memory_gb - RESERVED_GB[size]) / model.row_gb),
        clip_frames=4,
        steps=2,
        has_tiny_codec=not is_tiny,
        smallest_picture=0.5,
        memory_gb=memory_gb,
        picture=(480, 832),
        model=model,
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
        *(
            _wan(gpu, size, codec)
            for codec in (WAN_VAE, TAEHV)
            for gpu in GPU_GB
            for size in WAN_MODELS
        ),
    )
}


def profile_of(name: str) -> HardwareProfile:
    """The profile of a name; ConfigError lists those that there are."""
    if name not in PROFILES:
        raise ConfigError(f"no hardware profile {name!r}; there are {', '.join(sorted(PROFILES))}")
    return PROFILES[name]
