"""The stream by WebRTC to a server that takes it in: WHIP (RFC 9725), one HTTP request each way.

-o whip:https://host/whip/room      with a bearer token: whip:https://TOKEN@host/whip/room
"""

# aiortc's annotations are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import contextlib
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote, urljoin, urlsplit

from streamgen.clock import Clock
from streamgen.errors import ConfigError, SinkError
from streamgen.media import pixels as picture
from streamgen.media.sinks.rtc_loop import CONNECT_TIMEOUT_S, OVER, RtcLoop
from streamgen.types import Frame, PictureSize

REQUEST_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class WhipTarget:
    """Where to send to, and the bearer token that the server wants; "" for none."""

    url: str
    token: str


def whip_target(rest: str) -> WhipTarget:
    """Understand what stands after whip:. Raises ConfigError."""
    try:
        parts = urlsplit(rest)
        has_port = parts.port != 0
    except ValueError as error:
        raise ConfigError(f"-o whip:{rest}: {error}; correct it") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_port:
        raise ConfigError("-o whip: needs an address; write whip:https://host/whip/room")
    token, has_token, place = parts.netloc.rpartition("@")
    url = parts._replace(netloc=place).geturl() if has_token else rest
    return WhipTarget(url, unquote(token))


class WhipSink:
    """Sends to one WHIP server; a connection that is lost is a SinkError of the next `write`."""

    def __init__(self, target: WhipTarget, size: PictureSize, clock: Clock) -> None:
        """Connect. Raises SinkError if the server refuses or cannot be reached."""
        self._target = target
        self._size = PictureSize(size.height + size.height % 2, size.width + size.width % 2)
        self._place = urlsplit(target.url).netloc
        self._session_url: str | None = None
        self._rtc = RtcLoop(clock)
        try:
            self._connection = self._rtc.run(self._rtc.peer(), CONNECT_TIMEOUT_S)
            offer = self._rtc.run(self._offer(), CONNECT_TIMEOUT_S)
            answer = self._post(offer)
            self._rtc.run(self._connect(answer), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            self.abort()
            raise SinkError(
                f"whip {self._place} does not answer; is its server running?"
            ) from error
        except BaseException:
            self.abort()
            raise

    def write(self, frame: Frame) -> None:
        if self._connection.connectionState in OVER:
            raise SinkError(f"whip {self._place}: the connection is lost")
        self._rtc.show(picture.letterbox(frame.pixels, self._size))

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._session_url is not None:
            with contextlib.suppress(OSError):
                self._request(self._session_url, "DELETE", None)
        self._rtc.close()

    async def _offer(self) -> str:
        await self._connection.setLocalDescription(await self._connection.createOffer())
        # this side sends only, which aiortc would say by way of a transceiver's direction
        return re.sub(r"a=sendrecv", "a=sendonly", self._connection.localDescription.sdp)

    async def _connect(self, answer: str) -> None:
        from aiortc import RTCSessionDescription

        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        except Exception as error:  # whatever a broken description makes the parser raise
            raise SinkError(f"whip {self._place} gave no answer of WebRTC") from error
        while self._connection.connectionState in ("new", "connecting"):
            await asyncio.sleep(0.02)
        if self._connection.connectionState in OVER:
            raise SinkError(f"whip {self._place}: no path to it was found; is UDP allowed?")

    def _post(self, offer: str) -> str:
        try:
            status, location, body = self._request(self._target.url, "POST", offer.encode())
        except urllib.error.HTTPError as error:
            with error:
                raise SinkError(
                    f"whip {self._place} refused: {error.code} {error.reason}; check address and "
                    f"token"
                ) from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            reason = getattr(reason, "strerror", None) or reason
            raise SinkError(f"whip {self._place}: {reason}") from error
        if status != HTTPStatus.CREATED:
            raise SinkError(f"whip {self._place} answered {status}, not 201; is it a WHIP server?")
        if location:
            self._session_url = urljoin(self._target.url, location)
        return body.decode("utf-8", "replace")

    def _request(self, url: str, method: str, body: bytes | None) -> tuple[int, str | None, bytes]:
        headers = {"Content-Type": "application/sdp"} if body is not None else {}
        if self._target.token:
            headers["Authorization"] = f"Bearer {self._target.token}"
        request = urllib.request.Request(url, data=body, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
            return response.status, response.headers["Location"], response.read(MAX_ANSWER_BYTES)
