"""What the rest of the program must know of a codec: strides, channels, frames of the first chunk.

Host integers only; knows no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CodecFacts:
    """The geometry of a causal video codec."""

    temporal_stride: int  # pixel frames a latent frame
    spatial_stride: int  # pixels a latent pixel, in height and in width
    latent_channels: int
    first_frame_is_single: bool  # the stream's first latent frame holds one pixel frame, as Wan's

    @property
    def first_chunk_extra(self) -> int:
        """Pixel frames that the first chunk of a stream has more than later ones; 0 or negative."""
        return 1 - self.temporal_stride if self.first_frame_is_single else 0

    def num_pixel_frames(self, num_latent_frames: int, is_first: bool) -> int:
        """T of a chunk of F latent frames: stride * F, or 1 + stride * (F - 1) at a start."""
        extra = self.first_chunk_extra if is_first else 0
        return self.temporal_stride * num_latent_frames + extra

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Latent (height, width) of a picture of this size, pixels.

        Raises ConfigError if the stride does not divide it, or if it is empty.
        """
        stride = self.spatial_stride
        if height < stride or width < stride or height % stride or width % stride:
            sizes = sorted(
                {
                    (_below(height, stride), _below(width, stride)),
                    (_above(height, stride), _above(width, stride)),
                }
            )
            remedy = " or ".join(f"{nearest[1]}x{nearest[0]}" for nearest in sizes)
            raise ConfigError(
                f"a picture of {width}x{height} pixels does not divide into cells of"
                f" {stride}x{stride}; take {remedy}"
            )
        return height // stride, width // stride


def _below(length: int, stride: int) -> int:
    return max(length // stride, 1) * stride


def _above(length: int, stride: int) -> int:
    return max(-(-length // stride), 1) * stride
