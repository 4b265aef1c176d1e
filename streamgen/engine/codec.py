"""Between pictures and latents, with the streaming state of one session's codec.

Legend: T pixel frames, C channels, H W height and width, F latent frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamgen.models.base import VideoCodec
from streamgen.ops.operations import PLAIN, Operations
from streamgen.types import Clip


def pixels_to_tensor(
    clip: Clip, device: torch.device, dtype: torch.dtype, operations: Operations = PLAIN
) -> Tensor:
    """uint8 [T, H, W, 3] to floats in [-1, 1], [T, 3, H, W]."""
    pixels_THWC = torch.from_numpy(np.ascontiguousarray(clip.pixels)).to(device, non_blocking=True)
    return operations.to_signed(pixels_THWC, dtype)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedClip:
    """A decoded clip on its way to the host; `wait` blocks until the copy has arrived."""

    pixels_THWC: Tensor
    arrived: torch.cuda.Event | None
    """Recorded behind the copy; None on a CPU, where there is none."""
    pts_s: float
    captured_s: float

    def wait(self) -> Clip:
        if self.arrived is not None:
            self.arrived.synchronize()
        return Clip(self.pixels_THWC.numpy(), self.pts_s, self.captured_s)


class StreamEncoder:
    """Encodes one session's input; a new session takes a new one."""

    def __init__(
        self,
        codec: VideoCodec[Any],
        *,
        device: torch.device,
        dtype: torch.dtype,
        operations: Operations = PLAIN,
    ) -> None:
        self._codec = codec
        self._device = device
        self._dtype = dtype
        self._operations = operations
        self._state = codec.initial_state()

    @torch.inference_mode()
    def encode(self, pixels_TCHW: Tensor) -> Tensor:
        latents_FCHW, self._state = self._codec.encode(pixels_TCHW, self._state)
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
        """A clip as the codec wants it: [T, 3, H, W] in [-1, 1] on its device."""
        return pixels_to_tensor(clip, self._device, self._dtype, self._operations)


class StreamDecoder:
    """Decodes one session's finished chunks, in order; a new session takes a new one."""

    def __init__(self, codec: VideoCodec[Any], operations: Operations = PLAIN) -> None:
        self._codec = codec
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
        """Decode a chunk; the one copy to the host is asynchronous and carries its event."""
        assert latents_FCHW is not None, "a stopwatch has nothing to decode"
        pixels_TCHW, self._state = self._codec.decode(latents_FCHW, self._state)
        pixels_THWC = self._operations.to_bytes(pixels_TCHW[:num_frames])
        if pixels_THWC.device.type == "cpu":
            return DecodedClip(pixels_THWC, None, pts_s, captured_s)
        on_host = torch.empty_like(pixels_THWC, device="cpu", pin_memory=True)
        on_host.copy_(pixels_THWC, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return DecodedClip(on_host, arrived, pts_s, captured_s)
