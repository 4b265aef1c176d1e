"""A visitor at the other end of a WebSocket: texts are messages, binary messages are JPEGs."""

from __future__ import annotations

import asyncio
import io
from functools import partial

import cv2
import numpy as np
from fastapi import WebSocket
from PIL.JpegImagePlugin import JpegImageFile
from starlette.websockets import WebSocketDisconnect, WebSocketState

from streamgen.errors import ConfigError
from streamgen.serving.gateway.messages import (
    IN_FLIGHT,
    Command,
    Report,
    Shown,
    StampedPicture,
    pack_picture,
    read_command,
    unpack_picture,
)
from streamgen.serving.gateway.visit import MS, Arrival
from streamgen.types import Frame, Pixels

JPEG_QUALITY = 90
MAX_PIXELS = 4096 * 2304  # of a picture from a page; a camera's are far smaller


class SocketPeer:
    """One accepted WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._num_on_the_way = 0

    async def receive(self) -> Command | Arrival | None:
        while True:
            try:
                came = await self._socket.receive()
            except (WebSocketDisconnect, RuntimeError):
                return None
            if came["type"] == "websocket.disconnect":
                return None
            if came.get("bytes") is not None:
                picture = unpack_picture(came["bytes"])
                return Arrival(picture.stamp_ms, partial(decode_jpeg, picture.jpeg))
            command = read_command(came.get("text") or "")
            if not isinstance(command, Shown):
                return command
            self._num_on_the_way = max(0, self._num_on_the_way - 1)

    async def send(self, report: Report) -> None:
        if self._is_open:
            try:
                await self._socket.send_text(report.model_dump_json())
            except (WebSocketDisconnect, RuntimeError):
                return  # `receive` says that the visitor has gone

    async def show(self, frame: Frame) -> bool:
        if self._num_on_the_way >= IN_FLIGHT or not self._is_open:
            return False
        jpeg = await asyncio.to_thread(encode_jpeg, frame.pixels)
        self._num_on_the_way += 1
        try:
            await self._socket.send_bytes(pack_picture(StampedPicture(MS * frame.pts_s, jpeg)))
        except (WebSocketDisconnect, RuntimeError):
            return False
        return True

    @property
    def _is_open(self) -> bool:
        return (
            self._socket.application_state is WebSocketState.CONNECTED
            and self._socket.client_state is WebSocketState.CONNECTED
        )


def decode_jpeg(jpeg: bytes) -> Pixels:
    """Pixels [H, W, 3] of a JPEG; ConfigError for anything else, before it takes any memory."""
    try:
        width, height = JpegImageFile(io.BytesIO(jpeg)).size  # reads no further than its head
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError("a picture that is no JPEG; send a JPEG") from error
    if width * height > MAX_PIXELS:
        raise ConfigError(f"a picture of {width}x{height} is too large; make it smaller")
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    if decoded is None:
        raise ConfigError("a JPEG that is damaged; send it again")
    return np.asarray(decoded, np.uint8)


def encode_jpeg(pixels: Pixels) -> bytes:
    """A JPEG of pixels [H, W, 3]."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    is_written, encoded = cv2.imencode(".jpg", bgr, options)
    assert is_written, "a picture of uint8 can be a JPEG"
    return encoded.tobytes()
