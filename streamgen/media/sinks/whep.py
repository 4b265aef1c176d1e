"""A page with the stream by WebRTC, for browsers and OBS; any WHEP player can ask for it, too.

    -o whep://127.0.0.1:8091      OBS: browser source http://127.0.0.1:8091/

The page is a viewer of the endpoint /whep beside it (draft-ietf-wish-whep).
"""

# aiortc's annotations are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from streamgen.clock import Clock
from streamgen.errors import SinkError
from streamgen.media import pixels as picture
from streamgen.media.sinks.rtc_loop import CONNECT_TIMEOUT_S, OVER, RtcLoop
from streamgen.media.sinks.viewers import PageAddress, Reply, Request, ViewerServer
from streamgen.types import Frame, PictureSize

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

logger = logging.getLogger(__name__)

MAX_VIEWERS = 8  # each has an encoder
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>StreamGen</title>
<style>html,body{margin:0;height:100%;background:#000;overflow:hidden}
video{width:100%;height:100%;object-fit:contain}</style>
<video id="v" autoplay muted playsinline></video>
<script>
const query = location.search;
async function watch() {
  const pc = new RTCPeerConnection();
  pc.addTransceiver("video", {direction: "recvonly"});
  pc.ontrack = (event) => {
    event.receiver.playoutDelayHint = 0;
    document.getElementById("v").srcObject = new MediaStream([event.track]);
  };
  const gone = new Promise((resolve) => {
    pc.onconnectionstatechange = () => {
      if (["failed", "closed", "disconnected"].includes(pc.connectionState)) resolve();
    };
  });
  try {
    await pc.setLocalDescription(await pc.createOffer());
    if (pc.iceGatheringState !== "complete") await new Promise((resolve) => {
      pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve();
      setTimeout(resolve, 1000);
    });
    const answer = await fetch("whep" + query, {
      method: "POST", headers: {"Content-Type": "application/sdp"}, body: pc.localDescription.sdp,
    });
    if (!answer.ok) throw new Error(await answer.text());
    await pc.setRemoteDescription({type: "answer", sdp: await answer.text()});
    await gone;
  } finally { pc.close(); }
}
(async () => {
  for (;;) {
    try { await watch(); } catch (error) { console.log(error); }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
})();
</script>
</html>
"""


class WhepSink:
    """A page, and the endpoint /whep behind it, for up to MAX_VIEWERS at once."""

    def __init__(self, address: PageAddress, size: PictureSize, clock: Clock) -> None:
        """Raises SinkError if aiortc is missing or the address cannot be served."""
        self._size = PictureSize(size.height + size.height % 2, size.width + size.width % 2)
        self._rtc = RtcLoop(clock)
        self._viewers: dict[str, RTCPeerConnection] = {}
        try:
            self._server = ViewerServer(
                address,
                {"GET /": self._page, "POST /whep": self._begin, "DELETE /whep/*": self._end},
            )
        except SinkError:
            self._rtc.close()
            raise
        logger.warning("look at %s", self._server.address.url)

    @property
    def url(self) -> str:
        return self._server.address.url

    def write(self, frame: Frame) -> None:
        if self._rtc.num_peers:
            self._rtc.show(picture.letterbox(frame.pixels, self._size))

    def close(self) -> None:
        self._server.close()
        self._rtc.close()

    def abort(self) -> None:
        self.close()

    def _page(self, request: Request) -> Reply:
        del request
        return Reply(HTTPStatus.OK, PAGE.encode(), "text/html; charset=utf-8")

    def _begin(self, request: Request) -> Reply:
        if self._rtc.num_peers >= MAX_VIEWERS:
            return Reply(HTTPStatus.SERVICE_UNAVAILABLE, b"too many viewers\n")
        try:
            offer = request.body.decode("utf-8")
            name, answer = self._rtc.run(self._answer(offer), CONNECT_TIMEOUT_S)
        except Exception:  # whatever a broken description makes the parser raise
            logger.debug("a viewer's offer was refused", exc_info=True)
            return Reply(HTTPStatus.BAD_REQUEST, b"not an offer of a WebRTC session\n")
        headers = {"Location": f"/whep/{quote(name)}"}
        return Reply(HTTPStatus.CREATED, answer.encode(), "application/sdp", headers)

    async def _answer(self, offer: str) -> tuple[str, str]:
        from aiortc import RTCSessionDescription

        connection = await self._rtc.peer()
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
        except BaseException:
            await self._rtc.end(connection)
            raise
        name = f"{id(connection):x}"
        self._viewers = {
            key: viewer
            for key, viewer in self._viewers.items()
            if viewer.connectionState not in OVER
        } | {name: connection}
        return name, connection.localDescription.sdp

    def _end(self, request: Request) -> Reply:
        connection = self._viewers.pop(request.path.removeprefix("/whep/"), None)
        if connection is None:
            return Reply(HTTPStatus.NOT_FOUND, b"there is no such viewer\n")
        with contextlib.suppress(TimeoutError):
            self._rtc.run(self._rtc.end(connection), CONNECT_TIMEOUT_S)
        return Reply(HTTPStatus.OK)
