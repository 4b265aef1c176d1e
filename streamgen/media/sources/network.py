"""Streams from the network: RTSP, RTMP, SRT, HTTP, UDP, TCP, through PyAV (FFmpeg).

An address is a user's own word on the command line; nothing that a client sent may come here. What
an address leads to may name further addresses of the same kind, but never a file of this machine.
Passwords in addresses are not shown. Knows neither queues nor reconnecting: see SteadySource.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import IO, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError, ProtocolNotFoundError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamgen.clock import Clock
from streamgen.errors import SourceError
from streamgen.media.source import SourceFacts
from streamgen.media.sources.decoding import FALLBACK_FPS, HIGHEST_FPS, upright
from streamgen.types import PictureSize, Pixels

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 8.0  # a server that has not answered by then is not there
LISTEN_TIMEOUT_S = 60.0  # that a person has to start the sender
READ_TIMEOUT_S = 5.0  # a stream that is silent for so long is lost
MAX_GAP_S = 3.0  # between a picture of a segment and its moment; more begins the count anew
SECURED = "tcp,tls,crypto,udp,rtp,srtp"  # what other protocols stand on
WHITELISTS = {
    "http": f"http,https,hls,httpproxy,{SECURED}",
    "https": f"http,https,hls,httpproxy,{SECURED}",
    "rtsp": f"rtsp,rtsps,http,https,{SECURED}",
    "rtsps": f"rtsp,rtsps,http,https,{SECURED}",
    "rtmp": f"rtmp,rtmps,rtmpt,ffrtmphttp,http,https,{SECURED}",
    "rtmps": f"rtmp,rtmps,rtmpt,ffrtmphttp,http,https,{SECURED}",
    "srt": "srt,udp",
    "udp": "udp,rtp",
    "tcp": "tcp",
}
"""The schemes that -i takes, and what FFmpeg may use to follow each."""

T = TypeVar("T")

_LISTEN = re.compile(r"[?&]listen(=1)?\b")
_FILM_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "gif"})


class NetworkStream:
    """One connection; a Device.

    Pictures are decoded as they arrive. Those of HLS arrive a segment at a time, and are given out
    at their own pace.
    """

    def __init__(self, address: str, *, clock: Clock) -> None:
        """Raises SourceError if nothing answers or nothing that answers is a picture."""
        self._shown = without_password(address)
        self._clock = clock
        self._program: subprocess.Popen[bytes] | None = None
        self._container = self._opened(address)
        try:
            self._stream = self._picture_stream()
        except BaseException:
            self.close()
            raise
        self._is_segmented = self._container.format.name == "hls"
        self._start_s: float | None = None  # by the clock, when a segmented stream's time was 0
        self._pictures = self._decoded()

    @property
    def facts(self) -> SourceFacts:
        rate = self._stream.average_rate or self._stream.guessed_rate
        fps = float(rate) if rate and 0 < rate < HIGHEST_FPS else FALLBACK_FPS
        context = self._stream.codec_context
        return SourceFacts(PictureSize(context.height, context.width), fps=fps, is_live=True)

    @property
    def is_film(self) -> bool:
        """Whether it is a file with an end, which need not be taken as it comes."""
        has_end = self._container.duration is not None
        return has_end and self._container.format.name in _FILM_FORMATS

    def grab(self) -> Pixels | None:
        try:
            return next(self._pictures, None)
        except (FFmpegError, OSError) as error:
            raise SourceError(f"lost {self._shown}: {error}") from error

    def interrupt(self) -> None:
        """Without the program that receives SRT nothing more comes, and it cannot stay behind. A
        wait inside FFmpeg cannot be broken off from here: it ends by READ_TIMEOUT_S."""
        program = self._program
        if program is not None:
            program.kill()

    def close(self) -> None:
        self._container.close()
        self._end_program()

    def _opened(self, address: str) -> InputContainer:
        scheme = urlsplit(address).scheme.lower()
        options = {
            "protocol_whitelist": WHITELISTS[scheme],
            "fflags": "nobuffer",
            "flags": "low_delay",
        }
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # UDP loses packets where a firewall stands between
        if scheme.startswith("rtmp") and _LISTEN.search(address):
            address = _LISTEN.sub("", address)
            options["listen"] = "1"
        timeout = (LISTEN_TIMEOUT_S if "listen" in options else OPEN_TIMEOUT_S, READ_TIMEOUT_S)
        try:
            return _beside(lambda: av.open(address, mode="r", options=options, timeout=timeout))
        except ExitError as error:  # which is what FFmpeg calls the end of its patience
            if "listen" in options:
                raise SourceError(
                    f"nobody sent pictures to {self._shown} within {LISTEN_TIMEOUT_S:g} s; start "
                    f"the sender after this"
                ) from error
            raise SourceError(
                f"{self._shown} does not answer within {OPEN_TIMEOUT_S:g} s; check the address"
            ) from error
        except ProtocolNotFoundError as error:
            if scheme != "srt":
                raise SourceError(
                    f"this build of FFmpeg cannot read {scheme}: addresses"
                ) from error
            return self._opened_by_program(address)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def _opened_by_program(self, address: str) -> InputContainer:
        """SRT through the ffmpeg program, which hands on what it receives as it is."""
        program = shutil.which("ffmpeg")
        if program is None:
            raise SourceError(
                "srt: needs the ffmpeg program; install it, for example: sudo apt install ffmpeg"
            )
        command = [program, "-v", "error", "-nostdin", "-fflags", "nobuffer", "-i", address]
        command += ["-map", "0:v:0", "-c", "copy", "-f", "mpegts", "pipe:1"]
        self._program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            bufsize=0,  # what has come is read at once, and not when a buffer is full
        )  # fmt: skip
        assert self._program.stdout is not None
        pipe = cast(IO[bytes], self._program.stdout)
        try:
            return _beside(lambda: av.open(pipe, mode="r", format="mpegts"))
        except (FFmpegError, OSError, ValueError) as error:
            told = self._end_program()
            raise (SourceError(told) if told else self._unreachable(error)) from error
        except BaseException:
            self._end_program()
            raise

    def _end_program(self) -> str:
        """Stop the program, if there is one; the last line that it wrote, passwords left out."""
        program, self._program = self._program, None
        if program is None:
            return ""
        program.kill()
        _, told = program.communicate()
        lines = told.decode(errors="replace").strip().splitlines()
        if not lines or "rror" not in lines[-1]:
            return ""
        reason = lines[-1].rpartition(": ")[2].rstrip(".")
        return f"cannot open {self._shown}: {reason}; check the address"

    def _picture_stream(self) -> VideoStream:
        for stream in self._container.streams.video:
            stream.thread_type = "SLICE"  # threads by frame would each keep a picture back
            return stream
        raise SourceError(f"{self._shown} has no pictures; give an address with video")

    def _decoded(self) -> Iterator[Pixels]:
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except FFmpegError:
                continue  # a damaged packet: the next one may do
            for frame in frames:
                if self._is_segmented:
                    self._wait_for(frame)
                yield upright(frame, self._stream.sample_aspect_ratio)

    def _wait_for(self, frame: VideoFrame) -> None:
        if frame.pts is None or frame.time_base is None:
            return
        now_s, time_s = self._clock.now(), float(frame.pts * frame.time_base)
        if self._start_s is None or abs(now_s - (self._start_s + time_s)) > MAX_GAP_S:
            self._start_s = now_s - time_s
        self._clock.sleep(self._start_s + time_s - now_s)

    def _unreachable(self, error: Exception) -> SourceError:
        reason = getattr(error, "strerror", None) or str(error)
        return SourceError(
            f"cannot open {self._shown}: {reason}; does it play with: ffplay '{self._shown}'?"
        )


def _beside(work: Callable[[], T]) -> T:
    """The result of `work`, which may block for long inside FFmpeg, from a thread of its own.

    An interruption of the thread that waits counts at once; the other one then dies with the
    program.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever waits decides what it means
            future.set_exception(error)

    threading.Thread(target=run, name="network-opening", daemon=True).start()
    while not future.done():
        wait([future], timeout=0.5)  # on Windows a wait without an end is not interrupted
    return future.result()


class UrlContent:
    """A film at an http address, for PictureFile: decoded as it is read, from its beginning."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __str__(self) -> str:
        return without_password(self._address)

    def open(self) -> InputContainer:
        scheme = urlsplit(self._address).scheme.lower()
        options = {"protocol_whitelist": WHITELISTS[scheme]}
        try:
            return av.open(self._address, options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
        except (FFmpegError, OSError, ValueError) as error:
            raise SourceError(f"cannot open {self}: {error}; check the address") from error

    def close(self) -> None:
        """Nothing is held between two openings."""


def without_password(address: str) -> str:
    """An address as it may be shown: user and password replaced by stars."""
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}"))
