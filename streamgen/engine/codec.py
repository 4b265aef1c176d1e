"""Between pictures and latents, with the streaming state of one session's codec.

Encoding, decoding and the copy to the host each have a lane of their own, so that they run beside
the denoising of other chunks where the device can do that.

Legend: T pixel frames, C channels, H W height and width, F latent frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamgen.engine.lanes import Lane, Lanes, Mark, Stretch
from streamgen.models.base import VideoCodec
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.transfer import to_device
from streamgen.types import Clip


@dataclass(frozen=True, slots=True, eq=False)
class DecodedClip:
    """A decoded clip on its way to the host."""

    pixels_THWC: Tensor
    """In the host's memory; whole once `arrived` has passed."""
    arrived: Mark
    decoding: Stretch
    pts_s: float
    captured_s: float

    def has_arrived(self) -> bool:
        return self.arrived.has_passed()

    def device_s(self) -> float | None:
        return self.decoding.seconds()

    def wait(self) -> Clip:
        self.arrived.wait()
        return Clip(self.pixels_THWC.numpy(), self.pts_s, self.captured_s)


class StreamEncoder:
    """Encodes one session's input; a new session takes a new one."""

    def __init__(
        self,
        codec: VideoCodec[Any],
        *,
        device: torch.device,
        dtype: torch.dtype,
        lanes: Lanes,
        operations: Operations = PLAIN,
    ) -> None:
        self._codec = codec
        self._device = device
        self._dtype = dtype
        self._lanes = lanes
        self._operations = operations
        self._state = codec.initial_state()
        self._encoding: Stretch | None = None

    @property
    def encoding(self) -> Stretch | None:
        """What the device is still busy with of the newest clip; None where it has been done."""
        encoding = self._encoding
        return None if encoding is None or encoding.seconds() is not None else encoding

    @torch.inference_mode()
    def encode(self, pixels_TCHW: Tensor) -> Tensor:
        """Latents FCHW, for the lane of denoising, of pixels that `pixels` gave."""
        lanes = self._lanes
        with lanes.on(Lane.ENCODE):
            with lanes.timed() as self._encoding:
                latents_FCHW, self._state = self._codec.encode(pixels_TCHW, self._state)
            encoded = lanes.mark()
        lanes.take(encoded, latents_FCHW)
        return latents_FCHW

    def begin_within(self, clip: Clip) -> None:
        """Begin in the midst of a stream, before this clip.

        The codec takes what it sees first for the stream's beginning; so it sees the clip's first
        picture stand still for one latent frame.
        """
        num_still = self._codec.facts.num_pixel_frames(1, True)
        still = Clip(clip.pixels[:1].repeat(num_still, axis=0), clip.pts_s, clip.captured_s)
        self.encode(self.pixels(still))

    def pixels(self, clip: Clip) -> Tensor:
        """A clip as `encode` wants it: [T, 3, H, W] in [-1, 1], on its device and lane."""
        pixels_THWC = torch.from_numpy(np.ascontiguousarray(clip.pixels))
        with self._lanes.on(Lane.ENCODE):
            on_device = to_device(pixels_THWC, self._device)
            return self._operations.to_signed(on_device, self._dtype)


class StreamDecoder:
    """Decodes one session's finished chunks, in order; a new session takes a new one."""

    def __init__(
        self, codec: VideoCodec[Any], *, lanes: Lanes, operations: Operations = PLAIN
    ) -> None:
        self._codec = codec
        self._lanes = lanes
        self._operations = operations
        self._state = codec.initial_state()

    @torch.inference_mode()
    def decode(
        self,
        latents_FCHW: Tensor | None,
        *,
        num_frames: int,
        pts_s: float,
        captured_s: float,
    ) -> DecodedClip:
        """Decode a chunk; the one copy to the host is asynchronous and carries its mark."""
        assert latents_FCHW is not None, "a stopwatch has nothing to decode"
        lanes = self._lanes
        denoised = lanes.mark()
        with lanes.on(Lane.DECODE):
            lanes.take(denoised, latents_FCHW)
            with lanes.timed() as decoding:
                pixels_TCHW, self._state = self._codec.decode(latents_FCHW, self._state)
                pixels_THWC = self._operations.to_bytes(pixels_TCHW[:num_frames])
            decoded = lanes.mark()
        with lanes.on(Lane.COPY):
            lanes.take(decoded, pixels_THWC)
            on_host_THWC = lanes.to_host(pixels_THWC)
            return DecodedClip(on_host_THWC, lanes.mark(), decoding, pts_s, captured_s)
