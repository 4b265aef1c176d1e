"""Live video over the network: RTMP, RTSP, MPEG-TS over UDP, TCP or SRT, and HLS playlists.

    -o rtmp://host/app/key   -o rtsp://host:8554/name   -o udp://host:5000   -o tcp://host:5000
    -o tcp://127.0.0.1:5000?listen   -o srt://host:5000   -o live/stream.m3u8

NetworkSink is this process' end; H.264 and protocols are in the process beside it,
streamgen.media.sinks.network_child, which has PyAV or, for what that lacks, the ffmpeg program.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from streamgen.errors import ConfigError
from streamgen.media import pixels as picture
from streamgen.media.sinks.child import Child
from streamgen.types import Frame, PictureSize

FORMATS = {
    "rtmp": "flv",
    "rtmps": "flv",
    "rtsp": "rtsp",
    "udp": "mpegts",
    "tcp": "mpegts",
    "srt": "mpegts",
    "hls": "hls",
}
DEFAULT_PORTS = {"rtmp": 1935, "rtmps": 443, "rtsp": 554}  # those that people may leave out
OPEN_TIMEOUT_S = 10.0  # connection and greeting, and the start of a process
WRITE_TIMEOUT_S = 5.0  # of a peer that takes nothing
WEEK_S = 7 * 24 * 3600.0  # how long a listener waits for its reader
HEADER = struct.Struct("<q")  # before each picture: its place in the grid of 1/fps


@dataclass(frozen=True, slots=True)
class NetworkTarget:
    """Where to, and how; what the child process is told."""

    url: str
    protocol: str  # a key of FORMATS
    height: int
    width: int
    fps: float

    @property
    def is_listening(self) -> bool:
        """Whether this end waits for its reader to connect, instead of connecting."""
        query = parse_qs(urlsplit(self.url).query, keep_blank_values=True)
        if self.protocol == "tcp":
            return query.get("listen", ["0"])[-1] != "0"
        return self.protocol == "srt" and query.get("mode", [""])[-1] == "listener"

    @property
    def name(self) -> str:
        return name_without_secrets(self.url) if self.protocol != "hls" else self.url

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> NetworkTarget:
        return NetworkTarget(**json.loads(text))


def network_target(url: str, protocol: str, size: PictureSize, fps: float) -> NetworkTarget:
    """Check an address. Raises ConfigError; whether somebody is there shows when it is opened."""
    if protocol != "hls":
        try:
            parts = urlsplit(url)
            port = parts.port or DEFAULT_PORTS.get(protocol)
        except ValueError as error:
            raise ConfigError(f"-o {name_without_secrets(url)}: {error}; correct it") from error
        if not parts.hostname:
            raise ConfigError(f"-o {url} names no host; write {protocol}://127.0.0.1:5000")
        if port is None:
            raise ConfigError(f"-o {url} names no port; write {protocol}://{parts.hostname}:5000")
        if protocol in ("rtmp", "rtmps", "rtsp") and not parts.path.strip("/"):
            raise ConfigError(f"-o {url} names no stream; write {url.rstrip('/')}/live/name")
    return NetworkTarget(url, protocol, size.height, size.width, fps)


def name_without_secrets(url: str) -> str:
    """Scheme, host, port and the first part of the path: the rest may be a key."""
    match = re.match(r"([a-z0-9+.-]+://)(?:[^/@]*@)?([^/?#]*)(/[^/?#]+)?(/[^?#]+)?", url, re.I)
    if match is None:
        return url
    scheme, host, first, rest = match.groups()
    return f"{scheme}{host}{first or ''}{'/...' if rest else ''}"


class NetworkSink:
    """Sends pictures of one size at a constant rate; a frame's `pts_s` is its place in time."""

    def __init__(
        self,
        target: NetworkTarget,
        *,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        """Connect. Raises SinkError if nobody answers."""
        self._size = PictureSize(target.height, target.width)
        self._fps = target.fps
        self._first_pts_s: float | None = None
        self._last_index = -1
        self._child = Child(
            target.name,
            [sys.executable, "-m", "streamgen.media.sinks.network_child", target.to_json()],
            says_ready=True,
            open_timeout_s=WEEK_S if target.is_listening else open_timeout_s,
            timeout_s=write_timeout_s,
            env=_environment(),
        )

    def write(self, frame: Frame) -> None:
        if self._first_pts_s is None:
            self._first_pts_s = frame.pts_s
        index = round((frame.pts_s - self._first_pts_s) * self._fps)
        self._last_index = max(index, self._last_index + 1)
        pixels = np.ascontiguousarray(picture.letterbox(frame.pixels, self._size))
        self._child.send(HEADER.pack(self._last_index), pixels.data)

    def close(self) -> None:
        self._child.finish()

    def abort(self) -> None:
        self._child.kill()


def _environment() -> dict[str, str]:
    """This process' own, with the place of this package first, and no threads for NumPy."""
    package_parent = str(Path(__file__).resolve().parents[3])
    paths = [package_parent, os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OPENBLAS_NUM_THREADS": "1",
    }
