"""Clips out of the public interface: many streams on one host, so that they share its batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamgen.clock import MonotonicClock
from streamgen.media.opening import open_source
from streamgen.media.pixels import Framing
from streamgen.media.source import FrameSource, SourceFacts
from streamgen.models.tiny.bundle import PACKAGE_WEIGHTS
from streamgen.serving.host import Host
from streamgen.serving.stream import Stream
from streamgen.types import Clip, Frame, PictureSize, Pixels

TEXT_PRESET, VIDEO_PRESET = "tiny-cpu", "tiny-cpu-v2v"
SIZE = PictureSize(128, 128)
FPS = 16.0
TIMESTEPS = {  # by number of steps; 4 is the preset's own
    4: (1000, 750, 500, 250),
    3: (1000, 667, 333),
    2: (1000, 500),
    1: (1000,),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """Which model, in which settings, and how many streams at once."""

    weights: str
    """"package" or a path."""
    overrides: tuple[str, ...]
    sessions: int

    def host(self, preset: str, *more: str) -> Host:
        """A host of a preset; `more` overrides win over those of the command line."""
        return Host(preset, overrides=(
            f"engine.sessions={self.sessions}", *self.overrides, *more, *self.weights_override()
        ))  # fmt: skip

    def weights_override(self) -> tuple[str, ...]:
        return () if self.weights == "package" else (f"model.weights={self.weights}",)

    def fingerprint(self) -> str:
        """First digits of the SHA-256 of the weights file."""
        path = PACKAGE_WEIGHTS if self.weights == "package" else Path(self.weights).expanduser()
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def ladder_override(num_steps: int) -> str:
    return f"denoise.timesteps={list(TIMESTEPS[num_steps])}"


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A stream to open; `clip` is its input, for video to video."""

    prompt: str
    seed: int
    clip: Pixels | None = None
    strength: float | None = None
    first: Path | None = None
    """A picture to begin with."""


class ClipSource:
    """Pictures that are in memory, uint8 [T, H, W, 3], as a source."""

    def __init__(self, clip: Pixels, *, fps: float = FPS) -> None:
        self._clip = clip
        self._fps = fps
        self._index = 0

    @property
    def facts(self) -> SourceFacts:
        return SourceFacts(PictureSize(*self._clip.shape[1:3]), self._fps)

    def read(self) -> Frame | None:
        if self._index == len(self._clip):
            return None
        time_s = self._index / self._fps
        frame = Frame(self._clip[self._index], pts_s=time_s, captured_s=time_s)
        self._index += 1
        return frame

    def close(self) -> None:
        """Nothing is held."""


def open_stream(host: Host, order: Order, *, num_frames: int | None) -> Stream:
    """`num_frames` None: until the input ends."""
    source: FrameSource | None = None if order.clip is None else ClipSource(order.clip)
    return Stream(
        host,
        prompt=order.prompt,
        seed=order.seed,
        source=source,
        strength=order.strength,
        max_frames=num_frames,
        first=order.first,
    )


def play(
    host: Host, orders: Sequence[Order], *, num_frames: int | None
) -> Iterator[tuple[int, Pixels]]:
    """Open all orders at once and read them in turn: (number of the order, its next frame)."""
    with ExitStack() as stack:
        streams = [
            stack.enter_context(open_stream(host, order, num_frames=num_frames)) for order in orders
        ]
        running = dict(enumerate(streams))
        while running:
            for index, stream in list(running.items()):
                frame = next(stream, None)
                if frame is None:
                    del running[index]
                else:
                    yield index, frame.pixels


def collect_clips(
    host: Host, orders: Sequence[Order], *, num_frames: int | None = None
) -> list[Pixels]:
    """The whole clip of each order, as many at once as the host has sessions."""
    clips: list[Pixels] = []
    at_once = host.pipeline.config.engine.sessions
    for first in range(0, len(orders), at_once):
        group = orders[first : first + at_once]
        frames: list[list[Pixels]] = [[] for _ in group]
        for index, pixels in play(host, group, num_frames=num_frames):
            frames[index].append(pixels)
        clips += [np.stack(one) for one in frames]
    return clips


def through_codec(host: Host, clip: Pixels) -> Pixels:
    """A clip encoded and decoded: the best that any model behind this codec could show.

    Frames that do not fill a latent frame at the end are cut off.
    """
    pipeline = host.pipeline
    stride = pipeline.bundle.codec.facts.temporal_stride
    whole = Clip(clip[: len(clip) // stride * stride], 0.0, 0.0)
    encoder, decoder = pipeline.new_encoder(), pipeline.new_decoder()
    latents_FCHW = encoder.encode(encoder.pixels(whole))
    decoded = decoder.decode(latents_FCHW, num_frames=whole.num_frames, pts_s=0.0, captured_s=0.0)
    return decoded.wait().pixels


def load_clip(path: Path, num_frames: int) -> Pixels:
    """The first frames of a video file at the model's rate and size; SourceError if it has none."""
    source = open_source(str(path), clock=MonotonicClock(), size=SIZE, fps=FPS)
    framing = Framing(SIZE)
    frames: list[Pixels] = []
    try:
        while len(frames) < num_frames and (frame := source.read()) is not None:
            frames.append(framing.apply(frame.pixels))
    finally:
        source.close()
    return np.stack(frames)
