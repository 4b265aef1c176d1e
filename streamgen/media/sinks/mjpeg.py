"""A page with the newest picture, as Motion JPEG: for browsers, OBS and ffmpeg, without an encoder.

    -o mjpeg://127.0.0.1:8090      OBS: browser source http://127.0.0.1:8090/
                                   ffplay http://127.0.0.1:8090/stream.mjpg

Each viewer gets the newest picture whenever it has taken the one before: a slow one sees fewer.
"""

from __future__ import annotations

import logging
import threading
from http import HTTPStatus
from urllib.parse import quote

import cv2
import numpy as np

from streamgen.errors import SinkError
from streamgen.media import pixels as picture
from streamgen.media.sinks.viewers import PageAddress, Reply, Request, ViewerServer
from streamgen.types import Frame, PictureSize

logger = logging.getLogger(__name__)

JPEG_QUALITY = 85  # of 100
REPEAT_S = 1.0  # the last picture again after so long, which also shows whether somebody is there
BOUNDARY = "streamgen-frame"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>StreamGen</title>
<style>html,body{{margin:0;height:100%;background:#000;overflow:hidden}}
img{{width:100%;height:100%;object-fit:contain;image-rendering:auto}}</style>
<img src="stream.mjpg{query}" alt="live picture">
</html>
"""


class MjpegSink:
    """Serves a page, the stream and a snapshot; encodes a picture once, and only for viewers."""

    def __init__(self, address: PageAddress, size: PictureSize) -> None:
        """Raises SinkError if the address cannot be served."""
        self._size = size
        self._changed = threading.Condition()
        self._jpeg = b""
        self._num_pictures = 0
        self._has_ended = False
        self._server = ViewerServer(
            address,
            {
                "GET /": self._page,
                "GET /stream.mjpg": self._stream,
                "GET /snapshot.jpg": self._snapshot,
            },
        )
        logger.warning("look at %s", self._server.address.url)

    @property
    def url(self) -> str:
        return self._server.address.url

    def write(self, frame: Frame) -> None:
        pixels = picture.letterbox(frame.pixels, self._size)
        bgr = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
        is_done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not is_done:
            raise SinkError(f"a picture of {self._size} cannot be a JPEG; choose another size")
        with self._changed:
            self._jpeg = jpeg.tobytes()
            self._num_pictures += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
        self._server.close()

    def abort(self) -> None:
        self.close()

    def _page(self, request: Request) -> Reply:
        query = f"?token={quote(request.token)}" if request.token else ""
        page = PAGE.format(query=query).encode()
        return Reply(HTTPStatus.OK, page, "text/html; charset=utf-8")

    def _snapshot(self, request: Request) -> Reply:
        del request
        jpeg, _ = self._next(0)
        if not jpeg:
            return Reply(HTTPStatus.SERVICE_UNAVAILABLE, b"no picture yet\n")
        return Reply(HTTPStatus.OK, jpeg, "image/jpeg")

    def _stream(self, request: Request) -> None:
        request.begin(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        num_seen = 0
        while True:
            jpeg, num_seen = self._next(num_seen)
            if self._has_ended:
                return
            if not jpeg:
                continue
            head = (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            )
            request.write(head.encode() + jpeg + b"\r\n")

    def _next(self, num_seen: int) -> tuple[bytes, int]:
        """A picture that is newer than number `num_seen`, or the last one after REPEAT_S."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._has_ended or self._num_pictures > num_seen, REPEAT_S
            )
            return self._jpeg, self._num_pictures
