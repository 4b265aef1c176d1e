"""What may stand before the colon of -i, and who opens it.

synthetic:   synthetic:48   synthetic:bars   synthetic:timecode
webcam:      webcam:1       webcam:logitech,size=1280x720,fps=30
screen:      screen:2       screen:,at=100x200,size=640x480
rtsp://...   rtmp://...     srt://...   http://...   udp://...   tcp://...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from streamgen.clock import Clock
from streamgen.errors import ConfigError
from streamgen.media.source import FrameSource
from streamgen.media.sources.options import NamedSource
from streamgen.media.sources.retiming import LiveRateSource
from streamgen.media.sources.steady import Device, SteadySource
from streamgen.media.sources.synthetic import PATTERNS, SyntheticSource, moving_picture
from streamgen.types import PictureSize

SYNTHETIC_FPS = 16.0  # frames a second of test pictures where nobody asks for a rate


@dataclass(frozen=True, slots=True)
class SourceWishes:
    """What the stream would like of its source; files keep their own size, and are fitted later."""

    clock: Clock
    size: PictureSize  # of sources that can choose: synthetic pictures, cameras
    fps: float | None  # frames a second; None: the source's own
    plays: int | None  # how often a file is shown; None: endlessly


def _open_synthetic(rest: str, wishes: SourceWishes) -> FrameSource:
    picture, num_frames = moving_picture, None
    if rest in PATTERNS:
        picture = PATTERNS[rest]
    elif rest.isascii() and rest.isdecimal() and int(rest) > 0:
        num_frames = int(rest)
    elif rest:
        known = ", ".join(f"synthetic:{name}" for name in PATTERNS)
        raise ConfigError(
            f"synthetic:{rest} is not a number of frames; write synthetic:48, or {known}"
        )
    fps = wishes.fps or SYNTHETIC_FPS
    return SyntheticSource(
        wishes.size, fps=fps, clock=wishes.clock, num_frames=num_frames, picture=picture
    )


def _open_webcam(rest: str, wishes: SourceWishes) -> FrameSource:
    from streamgen.media.sources import webcam

    named = NamedSource.parse("webcam", rest, known=("size", "fps"))
    size = named.size or webcam.size_to_ask(wishes.size)
    target = webcam.find_camera(named.name)
    opened = partial(webcam.OpenCvCamera, target, size=size, fps=named.fps or webcam.FPS)
    return _steady(opened, f"webcam:{target}", wishes)


def _open_screen(rest: str, wishes: SourceWishes) -> FrameSource:
    from streamgen.media.sources import screen

    named = NamedSource.parse("screen", rest, known=("size", "at", "fps"))
    opened = partial(
        screen.ScreenRegion,
        named.name,
        size=named.size,
        corner=named.corner,
        fps=named.fps or screen.FPS,
        clock=wishes.clock,
    )
    return _steady(opened, f"screen:{named.name}", wishes)


def _open_network(scheme: str, rest: str, wishes: SourceWishes) -> FrameSource:
    from streamgen.media.sources import network
    from streamgen.media.sources.video_file import VideoFileSource

    if not rest.startswith("//"):
        raise ConfigError(f"-i {scheme}: needs an address; write {scheme}://host/path")
    address = f"{scheme}:{rest}"
    if scheme.startswith("http"):
        stream = network.NetworkStream(address, clock=wishes.clock)
        is_film = stream.is_film
        stream.close()
        if is_film:
            content = network.UrlContent(address)
            return VideoFileSource(content, clock=wishes.clock, fps=wishes.fps, plays=wishes.plays)
    opened = partial(network.NetworkStream, address, clock=wishes.clock)
    return _steady(opened, network.without_password(address), wishes)


def _steady(open_device: Callable[[], Device], name: str, wishes: SourceWishes) -> FrameSource:
    """A device that may come and go, at the rate of the stream."""
    source = SteadySource(open_device, name=name, clock=wishes.clock)
    return source if wishes.fps is None else LiveRateSource(source, fps=wishes.fps)


NETWORK_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "http", "https", "udp", "tcp")

SOURCE_SCHEMES: Mapping[str, Callable[[str, SourceWishes], FrameSource]] = {
    "synthetic": _open_synthetic,
    "webcam": _open_webcam,
    "screen": _open_screen,
    **{scheme: partial(_open_network, scheme) for scheme in NETWORK_SCHEMES},
}
LIVE_SCHEMES = frozenset(SOURCE_SCHEMES) - {"synthetic", "http", "https"}
"""Those that go on until somebody stops them."""
