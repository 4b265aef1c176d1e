"""What work costs on some hardware: measured, or computed from public arithmetic and marked so.

Computed ones: a forward of one chunk of Wan 2.1 at 480x832 with a window of six latent frames takes
6.7 TFLOP at 1.3B and 49.9 TFLOP at 14B; half of 989 TFLOP/s dense bf16 is assumed for H100 and H200
alike (they differ in memory, not in arithmetic), 2 ms of launches a forward, and a full codec that
takes 30 % of what one step of the 1.3B model takes beside it (StreamDiffusionV2, arXiv:2511.07399,
reports that share), half for each direction; a tiny codec a tenth of that (TAEHV).
"""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.errors import ConfigError
from streamgen.scheduling.latency import Costs, LatencyFit

H100_FLOPS = 0.5 * 989e12
LAUNCH_S = 0.002
CODEC_S_A_PICTURE = 0.3 / 0.7 * 2 * 6.7e12 / H100_FLOPS / 4 / 2
TINY_CODEC = 0.1
ROW_GB = {"1.3b": 9360 * 30 * 1536 * 4 / 1e9, "14b": 9360 * 40 * 5120 * 4 / 1e9}


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


def _wan(
    name: str, size: str, tflop: float, memory_gb: float, weights_gb: float
) -> HardwareProfile:
    codec = LatencyFit(0.001, CODEC_S_A_PICTURE)
    return HardwareProfile(
        name=name,
        origin="computed",
        costs=Costs(
            LatencyFit(LAUNCH_S, tflop * 1e12 / H100_FLOPS), codec, codec, tiny_codec=TINY_CODEC
        ),
        cache_rows=int((memory_gb - weights_gb) / ROW_GB[size]),
        clip_frames=4,
        steps=2,
        has_tiny_codec=True,
        smallest_picture=0.5,
    )


PROFILES = {
    profile.name: profile
    for profile in (
        HardwareProfile(
            name="tiny-cpu",
            origin="measured: benchmarks/tiny-cpu-speed.json, 2 cores of an AMD EPYC",
            costs=Costs(
                LatencyFit(0.0037, 0.0026), LatencyFit(0.0, 0.00034), LatencyFit(0.0, 0.00093)
            ),
            cache_rows=64,
            clip_frames=4,
            steps=4,
            has_tiny_codec=False,
            smallest_picture=1.0,
        ),
        _wan("h100-1.3b", "1.3b", 6.7, 80, 16),
        _wan("h200-1.3b", "1.3b", 6.7, 141, 16),
        _wan("h100-14b", "14b", 49.9, 80, 40),
        _wan("h200-14b", "14b", 49.9, 141, 40),
    )
}


def profile_of(name: str) -> HardwareProfile:
    """The profile of a name; ConfigError lists those that there are."""
    if name not in PROFILES:
        raise ConfigError(f"no hardware profile {name!r}; there are {', '.join(sorted(PROFILES))}")
    return PROFILES[name]
