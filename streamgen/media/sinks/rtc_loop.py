"""Sending pictures by WebRTC from a thread, with aiortc: what WHEP and WHIP have in common.

aiortc is an optional package and imported here, lazily; its event loop has a thread of its own.
Knows no HTTP.
"""

# aiortc's annotations are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from av.video.frame import VideoFrame

from streamgen.clock import Clock
from streamgen.errors import SinkError, install_command
from streamgen.types import Pixels

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

VIDEO_HZ = 90_000  # clock rate of video in RTP (RFC 3551, sec. 5)
BIT_RATE = 4_000_000  # bits a second; aiortc's own 0.5 to 1.5 M blur 640x480
CONNECT_TIMEOUT_S = 10.0
OVER = ("closed", "failed")

T = TypeVar("T")


class RtcLoop:
    """An event loop in a thread, and the peers that send what is shown."""

    def __init__(self, clock: Clock) -> None:
        """Raises SinkError if aiortc is not installed."""
        try:
            from aiortc.codecs import h264, vpx
        except ImportError as error:
            raise SinkError(
                "whip: and whep: need the package aiortc, which is not installed; "
                f"{install_command('webrtc')}"
            ) from error
        vpx.DEFAULT_BITRATE = vpx.MAX_BITRATE = BIT_RATE  # aiortc has no other way to say so
        h264.DEFAULT_BITRATE = h264.MAX_BITRATE = BIT_RATE
        self._clock = clock
        self._peers: dict[RTCPeerConnection, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="webrtc", daemon=True)
        self._thread.start()

    @property
    def num_peers(self) -> int:
        return len(self._peers)

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Wait for `work`, from another thread. Raises TimeoutError."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise TimeoutError from None

    def show(self, pixels: Pixels) -> None:
        """Let every peer send this picture, if it has sent the one before."""
        self._loop.call_soon_threadsafe(self._show, pixels)

    async def peer(self) -> RTCPeerConnection:
        """A new peer that sends the pictures."""
        from aiortc import RTCPeerConnection

        connection = RTCPeerConnection()
        track = _new_track(self._clock)
        connection.addTrack(track)
        self._peers[connection] = track

        def look() -> None:
            if connection.connectionState in OVER:
                self._peers.pop(connection, None)

        connection.on("connectionstatechange", look)
        return connection

    async def end(self, connection: RTCPeerConnection) -> None:
        self._peers.pop(connection, None)
        await connection.close()

    def close(self) -> None:
        """End all peers and the thread."""
        with contextlib.suppress(TimeoutError):
            self.run(self._end_all(), CONNECT_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONNECT_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end_all(self) -> None:
        await asyncio.gather(*(self.end(connection) for connection in list(self._peers)))
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _show(self, pixels: Pixels) -> None:
        for track in self._peers.values():
            track.put(pixels)


def _new_track(clock: Clock) -> Any:
    """The newest picture as a track; its class can only be made once aiortc is there."""
    from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

    class PictureTrack(MediaStreamTrack):
        kind = "video"

        def __init__(self) -> None:
            super().__init__()
            self._began_s = clock.now()
            self._newest: asyncio.Queue[Pixels] = asyncio.Queue(1)

        def put(self, pixels: Pixels) -> None:
            if self._newest.full():
                self._newest.get_nowait()
            self._newest.put_nowait(pixels)

        async def recv(self) -> VideoFrame:
            if self.readyState != "live":
                raise MediaStreamError
            pixels = await self._newest.get()
            frame = await asyncio.to_thread(_yuv, pixels)
            frame.pts = round((clock.now() - self._began_s) * VIDEO_HZ)
            frame.time_base = Fraction(1, VIDEO_HZ)
            return frame

    return PictureTrack()


def _yuv(pixels: Pixels) -> VideoFrame:
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(format="yuv420p")
