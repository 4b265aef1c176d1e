"""Small video files, made with PyAV where a test needs one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamgen.types import Pixels

TIME_BASE = Fraction(1, 1000)


def grey(value: int, *, height: int = 48, width: int = 64) -> Pixels:
    """A picture of one grey, by which it is known again after encoding."""
    return np.full((height, width, 3), value, np.uint8)


def grey_ramp(num_frames: int, *, height: int = 48, width: int = 64) -> list[Pixels]:
    """Pictures that grow lighter: number i is grey 20 + 10 * i."""
    return [grey(20 + 10 * index, height=height, width=width) for index in range(num_frames)]


def number_of(pixels: Pixels) -> int:
    """Which picture of grey_ramp this is, by its middle."""
    height, width = pixels.shape[:2]
    return round((float(pixels[height // 2, width // 2].mean()) - 20) / 10)


def write_video(
    path: Path,
    pictures: Sequence[Pixels],
    *,
    times_s: Sequence[float] | None = None,
    fps: int = 10,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode `pictures`, shown from `times_s` on or at `fps`; the ending names the format.

    `rotation` is written as metadata: degrees counter-clockwise by which a player turns it.
    """
    times_s = times_s or [index / fps for index in range(len(pictures))]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.time_base = TIME_BASE
        stream.options = dict[str, object](codec_options or {})
        if rotation:
            stream.set_display_rotation(rotation)
        for pixels, time_s in zip(pictures, times_s, strict=True):
            frame = VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(time_s / TIME_BASE)
            frame.time_base = TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
