"""The process behind NetworkSink: pictures on standard input, H.264 to the network.

    python -m streamgen.media.sinks.network_child '{"url": ..., "protocol": ..., ...}'

Says "ready" on standard output when the output is open. Ends with exit code 0 when its input ends,
else with 1 and one line that says why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import av
import numpy as np
from av.error import FFmpegError, ProtocolNotFoundError

from streamgen.media.sinks.child import READY
from streamgen.media.sinks.encoding import Encoder, Encoding
from streamgen.media.sinks.network import FORMATS, HEADER, NetworkTarget
from streamgen.types import PictureSize, Pixels

CRF = 20  # quality where the bit rate allows it
BITS_PER_PIXEL = 0.2  # at most
BIT_RATE_RANGE = (500_000, 12_000_000)  # of the maximum
BUFFER_S = 0.5  # of the maximum, by which the bit rate may be uneven
SOCKET_TIMEOUT_S = 5.0
LOOK_EVERY_S = 0.5  # for the parent, while nobody connects
UDP_PACKET_BYTES = 1316  # 7 packets of MPEG-TS, below the usual 1500 of a network

CONTAINER_OPTIONS = {
    "flv": {"flvflags": "no_duration_filesize"},  # a live stream cannot be rewound to write them
    "rtsp": {"rtsp_transport": "tcp"},
    "hls": {"hls_time": "2", "hls_list_size": "6", "hls_flags": "delete_segments+temp_file"},
    "mpegts": {"flush_packets": "1", "pat_period": "0.5"},
}


class CannotSendError(Exception):
    """One line for the user."""


def main(arguments: list[str]) -> int:
    target = NetworkTarget.from_json(arguments[0])
    try:
        _send_all(target)
    except CannotSendError as error:
        print(error)
        return 1
    except FFmpegError as error:
        print(_reason(error, target))
        return 1
    except OSError as error:
        print(error.strerror or type(error).__name__)
        return 1
    return 0


def _send_all(target: NetworkTarget) -> None:
    size = PictureSize(target.height, target.width)
    opened = _open(target)
    encoder = Encoder(opened.output, _encoding(target), size, fps=target.fps)
    encoder.begin()
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    try:
        num_bytes = HEADER.size + size.height * size.width * 3
        while len(data := sys.stdin.buffer.read(num_bytes)) == num_bytes:
            pixels: Pixels = np.frombuffer(data, np.uint8, offset=HEADER.size)
            encoder.encode(pixels.reshape(size.height, size.width, 3), HEADER.unpack_from(data)[0])
        encoder.finish()
    except (FFmpegError, OSError):
        with contextlib.suppress(FFmpegError, OSError):
            encoder.discard()
        opened.explain()
        raise
    opened.close()


@dataclass(frozen=True, slots=True)
class _Opened:
    """Where the container goes, how that is completed, and what raises a better explanation."""

    output: BinaryIO | str
    close: Callable[[], None] = lambda: None
    explain: Callable[[], None] = lambda: None


def _open(target: NetworkTarget) -> _Opened:
    if target.protocol == "tcp":
        return _open_tcp(target)
    if target.protocol == "srt" and not pyav_has_protocol("srt"):
        return _open_ffmpeg(target)
    url = target.url
    if target.protocol == "udp" and "pkt_size" not in url:
        url += f"{'&' if '?' in url else '?'}pkt_size={UDP_PACKET_BYTES}"
    return _Opened(url)


def pyav_has_protocol(protocol: str) -> bool:
    """Whether the FFmpeg libraries inside PyAV know a protocol, such as "srt"."""
    try:
        av.open(f"{protocol}://", "r").close()
    except ProtocolNotFoundError:
        return False
    except (FFmpegError, OSError):
        return True
    return True


def _open_tcp(target: NetworkTarget) -> _Opened:
    """A socket of our own: FFmpeg's has no time limit that PyAV can set."""
    parts = urlsplit(target.url)
    address = (parts.hostname or "", parts.port or 0)
    if target.is_listening:
        connection = _accepted(address)
    else:
        connection = socket.create_connection(address, timeout=SOCKET_TIMEOUT_S)
    connection.settimeout(SOCKET_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    file = connection.makefile("wb", buffering=0)
    return _Opened(_Unseekable(file))  # type: ignore[arg-type]


def _accepted(address: tuple[str, int]) -> socket.socket:
    parent = os.getppid()
    with socket.create_server(address) as server:
        server.settimeout(LOOK_EVERY_S)
        while os.getppid() == parent:
            with contextlib.suppress(TimeoutError):
                return server.accept()[0]
    raise CannotSendError("nobody connected")


def _open_ffmpeg(target: NetworkTarget) -> _Opened:
    """The ffmpeg program, which gets finished MPEG-TS and only carries it on."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise CannotSendError(
            f"{target.protocol} is not in this PyAV and there is no ffmpeg program; install "
            f"ffmpeg (apt install ffmpeg) or use rtmp://, udp:// or tcp://"
        )
    quiet = ("-hide_banner", "-nostdin", "-loglevel", "error")
    at_once = ("-fflags", "nobuffer", "-analyzeduration", "0", "-probesize", "4096")
    carry_on = ("-c", "copy", "-flush_packets", "1", "-f", "mpegts")
    process = subprocess.Popen(
        [program, *quiet, *at_once, "-f", "mpegts", "-i", "-", *carry_on, target.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    stdin, stderr = process.stdin, process.stderr

    def explain() -> None:
        with contextlib.suppress(OSError):
            stdin.close()
        told = stderr.read().decode("utf-8", "replace").strip().splitlines()
        process.wait()
        raise CannotSendError(_shortened(told) if told else "ffmpeg has ended")

    def close() -> None:
        stdin.close()
        if process.wait():
            explain()

    return _Opened(_Unseekable(stdin), close, explain)  # type: ignore[arg-type]


def _shortened(told: list[str]) -> str:
    """The line of ffmpeg that says most, without the address, which may hold a password."""
    lines = [line for line in told if "Connection" in line or "Error opening" in line] or told
    return lines[0].split(": ")[-1].strip()


class _Unseekable:
    """A stream as PyAV is to see it: nothing but bytes that go on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]
        return len(data)


def _encoding(target: NetworkTarget) -> Encoding:
    container = FORMATS[target.protocol]
    lowest, highest = BIT_RATE_RANGE
    bits = int(BITS_PER_PIXEL * target.height * target.width * target.fps)
    max_rate = min(highest, max(lowest, bits))
    codec_options = {
        "preset": "veryfast",
        "tune": "zerolatency",  # no B-frames and no look-ahead: a frame leaves when it has come
        "sc_threshold": "0",  # keyframes where servers and playlists expect them, not at cuts
        "crf": str(CRF),
        "maxrate": str(max_rate),
        "bufsize": str(int(max_rate * BUFFER_S)),
    }
    options = dict(CONTAINER_OPTIONS[container])
    if container == "hls":
        playlist = Path(target.url)
        options["hls_segment_filename"] = str(playlist.with_name(f"{playlist.stem}-%05d.ts"))
    return Encoding(container, "libx264", "yuv420p", codec_options, options)


def _reason(error: FFmpegError, target: NetworkTarget) -> str:
    if isinstance(error, ProtocolNotFoundError):
        return (
            f"{target.protocol} is not in this PyAV; install a PyAV wheel, or use udp:// or tcp://"
        )
    return error.strerror or type(error).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
