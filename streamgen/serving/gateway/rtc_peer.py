"""A visitor at the other end of a WebRTC connection: a data channel for messages, a video track
each way for pictures.

For pages that are far away: a lost packet costs one picture here, where it would hold up all that
follow on a WebSocket. The page makes the offer, with its channel and its track in it; there is no
signalling beside the one request that carries the offer and the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import av
import numpy as np
from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import h264, vpx
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from pydantic import BaseModel, ConfigDict, Field

from streamgen.clock import Clock
from streamgen.errors import ConfigError
from streamgen.serving.gateway.messages import (
    IN_FLIGHT,
    MAX_TEXT_CHARACTERS,
    NO_CAMERA,
    Command,
    Report,
    Shown,
    read_command,
)
from streamgen.serving.gateway.visit import Arrival
from streamgen.types import Frame, Pixels

VIDEO_HZ = 90_000  # clock rate of video in RTP (RFC 3551, sec. 5)
BIT_RATE = 4_000_000  # bits a second; aiortc's 0.5 to 1.5 M blur 640x480
CONNECT_TIMEOUT_S = 10.0
SILENCE_S = 5.0  # a page says something each second; one that says nothing has gone
ENDED = ("closed", "failed")

# aiortc has no other way to say so
vpx.DEFAULT_BITRATE = vpx.MAX_BITRATE = BIT_RATE
h264.DEFAULT_BITRATE = h264.MAX_BITRATE = BIT_RATE


class SessionOffer(BaseModel):
    """What a page posts."""

    model_config = ConfigDict(extra="forbid")

    sdp: str = Field(max_length=MAX_TEXT_CHARACTERS)
    type: str = Field(pattern="^offer$")


class PictureTrack(MediaStreamTrack):
    """The pictures that go out; a few may wait for the encoder."""

    kind = "video"

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._began_s = clock.now()
        self._pictures: asyncio.Queue[Pixels] = asyncio.Queue(IN_FLIGHT)

    def put(self, pixels: Pixels) -> bool:
        """False if those before have not been encoded."""
        try:
            self._pictures.put_nowait(pixels)
        except asyncio.QueueFull:
            return False
        return True

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        pixels = await self._pictures.get()
        picture = await asyncio.to_thread(_video_frame, pixels)
        picture.pts = int((self._clock.now() - self._began_s) * VIDEO_HZ)
        picture.time_base = Fraction(1, VIDEO_HZ)
        return picture


class RtcPeer:
    """One connection, from its offer to its end."""

    def __init__(self, clock: Clock) -> None:
        self._connection = RTCPeerConnection()
        self._track = PictureTrack(clock)
        self._channel: RTCDataChannel | None = None
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._picture: av.VideoFrame | None = None
        self._changed = asyncio.Event()
        self._has_gone = False
        self._reader: asyncio.Task[None] | None = None

    async def answer(self, offer: SessionOffer) -> dict[str, str]:
        """Take the page's offer; ConfigError if it is none."""
        connection = self._connection
        connection.on("datachannel", self._open_channel)
        connection.on("track", self._open_track)
        connection.on("connectionstatechange", self._look_at_state)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, offer.type))
            if connection.sctp is None:
                raise ValueError("an offer without a data channel")
            for transceiver in connection.getTransceivers():
                if transceiver.kind == "video":
                    transceiver.sender.replaceTrack(self._track)
                    transceiver.direction = "sendrecv"
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # whatever a broken description makes the parser raise
            await self.close()
            raise ConfigError("not an offer of a WebRTC session; reload the page") from error
        description = connection.localDescription
        return {"sdp": description.sdp, "type": description.type}

    async def connected(self) -> bool:
        """Wait for the page's channel; False if it does not come in time."""
        return await self._wait(lambda: self._channel is not None, CONNECT_TIMEOUT_S)

    async def receive(self) -> Command | Arrival | None:
        while await self._wait(self._has_something, SILENCE_S):
            if not self._texts.empty():
                text = self._texts.get_nowait()
                if text is None:
                    break
                command = read_command(text)
                if not isinstance(command, Shown):  # which here only says that somebody is there
                    return command
            elif self._picture is not None:
                picture, self._picture = self._picture, None
                return Arrival(NO_CAMERA, partial(_pixels, picture))
        self._has_gone = True
        return None

    async def send(self, report: Report) -> None:
        channel = self._channel
        if channel is not None and channel.readyState == "open":
            channel.send(report.model_dump_json())

    async def show(self, frame: Frame) -> bool:
        return not self._has_gone and self._track.put(frame.pixels)

    async def close(self) -> None:
        self._track.stop()
        if self._reader is not None:
            self._reader.cancel()
        await self._connection.close()

    def _has_something(self) -> bool:
        return self._has_gone or not self._texts.empty() or self._picture is not None

    async def _wait(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        """Until something is the case; False if it is not within the time, or the page has gone."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_true():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return not self._has_gone

    def _open_channel(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._take_text)
        channel.on("close", self._go)
        self._changed.set()

    def _open_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "video":
            self._reader = asyncio.ensure_future(self._read(track))

    async def _read(self, track: MediaStreamTrack) -> None:
        """Keep the newest picture only."""
        with contextlib.suppress(MediaStreamError):
            while True:
                picture = await track.recv()
                if isinstance(picture, av.VideoFrame):
                    self._picture = picture
                    self._changed.set()

    def _take_text(self, text: str | bytes) -> None:
        self._texts.put_nowait(text if isinstance(text, str) else "")
        self._changed.set()

    def _look_at_state(self) -> None:
        if self._connection.connectionState in ENDED:
            self._go()

    def _go(self) -> None:
        self._has_gone = True
        self._changed.set()


def _pixels(picture: av.VideoFrame) -> Pixels:
    return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)


def _video_frame(pixels: Pixels) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format="yuv420p"
    )
