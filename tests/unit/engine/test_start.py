from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streamgen.clock import SimulatedClock
from streamgen.diffusion.noise_control import StartLevel
from streamgen.engine.codec import StreamEncoder
from streamgen.engine.feed import QueueFeed
from streamgen.engine.lanes import InOrder
from streamgen.engine.start import VideoStarter
from streamgen.media.frame_queue import FileFrameQueue
from streamgen.models.codec_facts import CodecFacts
from streamgen.types import Frame
from tests.small_engine import CHANNELS, CPU, GEOMETRY, NOISE, SCHEDULE, SIZE


class FlatCodec:
    """A codec without a state whose latents are zeros."""

    facts = CodecFacts(1, 1, CHANNELS, first_frame_is_single=False)

    def initial_state(self) -> None:
        return None

    def encode(self, pixels_TCHW: Tensor, state: None) -> tuple[Tensor, None]:
        return pixels_TCHW.new_zeros(pixels_TCHW.shape[0], CHANNELS, SIZE, SIZE), None

    def decode(self, latents_FCHW: Tensor, state: None) -> tuple[Tensor, None]:
        raise AssertionError("nothing is decoded here")


class Recording:
    """A noise controller that keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def next(self, pixels_TCHW: Tensor) -> StartLevel:
        self.shown.append(pixels_TCHW)
        return StartLevel(0.7, 700.0)


def test_motion_is_measured_on_the_host_and_in_full_precision() -> None:
    """Whatever the codec computes in: reading a level back from a device would stall the tick, and
    bfloat16 pixels would blur small motion."""
    queue = FileFrameQueue(4)
    for number in range(2):
        pixels = np.full((SIZE, SIZE, 3), 100 * number, dtype=np.uint8)
        queue.put(Frame(pixels, float(number), float(number)))
    controller = Recording()
    starter = VideoStarter(
        NOISE,
        seed=0,
        feed=QueueFeed(queue, clip_frames=lambda _: 2, fps=GEOMETRY.fps, seed=0),
        encoder=StreamEncoder(
            FlatCodec(), device=CPU, dtype=torch.bfloat16, lanes=InOrder(SimulatedClock())
        ),
        controller=controller,
        schedule=SCHEDULE,
        condition_noise=None,
    )
    assert starter.ready()
    started = starter.start(0)
    (pixels_TCHW,) = controller.shown
    assert pixels_TCHW.device.type == "cpu"
    assert pixels_TCHW.dtype == torch.float32
    assert pixels_TCHW.shape == (2, 3, SIZE, SIZE)
    assert started.latents_FCHW.dtype == torch.bfloat16
