"""How many pages may be open at once, those that are still on their way among them."""

from __future__ import annotations

import asyncio
import json

import pytest
from fastapi import HTTPException, Request

from streamgen.clock import SimulatedClock
from streamgen.errors import ConfigError
from streamgen.serving.gateway import server
from streamgen.serving.gateway.server import Gateway
from streamgen.serving.live import LiveHost

rtc_peer = pytest.importorskip(
    "streamgen.serving.gateway.rtc_peer", reason="WebRTC needs aiortc, of the extra webcam"
)

MOST = 3
OFFER = {"sdp": "v=0", "type": "offer"}


class SilentPeer:
    """A page that posts its offer and then never connects."""

    given_up: asyncio.Event

    def __init__(self, clock: object) -> None: ...

    async def answer(self, offer: object) -> dict[str, str]:
        return {"sdp": "v=0", "type": "answer"}

    async def connected(self) -> bool:
        await self.given_up.wait()
        return False

    async def close(self) -> None: ...


class BrokenPeer(SilentPeer):
    """One whose offer cannot be read."""

    async def answer(self, offer: object) -> dict[str, str]:
        raise ConfigError("not an offer")


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", MOST)
    monkeypatch.setattr(rtc_peer, "RtcPeer", SilentPeer)
    clock = SimulatedClock()

    def no_host() -> object:
        raise AssertionError("nobody connects, so that no engine is needed")

    host = LiveHost({"any": no_host}, clock=clock)  # type: ignore[dict-item]
    return Gateway(host, {}, num_places=1, clock=clock)


async def post(gateway: Gateway, body: bytes | None = None) -> dict[str, str] | int:
    """The answer to an offer, or the status that it is refused with."""
    sent = json.dumps(OFFER).encode() if body is None else body

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": sent, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    try:
        return await gateway.visit_by_rtc(request)
    except HTTPException as refusal:
        return refusal.status_code


def test_offers_that_never_connect_count_until_they_are_given_up(gateway: Gateway):
    async def test() -> None:
        SilentPeer.given_up = asyncio.Event()
        for _ in range(MOST):
            assert isinstance(await post(gateway), dict)
        assert await post(gateway) == 503
        SilentPeer.given_up.set()
        while await post(gateway) == 503:  # as soon as the loop has come to them
            await asyncio.sleep(0)
        await gateway.close()

    asyncio.run(test())


@pytest.mark.parametrize("body", [b"no offer", b"x" * (server.MAX_OFFER_BYTES + 1), None])
def test_offers_that_are_refused_do_not_count(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, body: bytes | None
):
    async def test() -> None:
        SilentPeer.given_up = asyncio.Event()
        with monkeypatch.context() as patched:
            patched.setattr(rtc_peer, "RtcPeer", BrokenPeer)
            for _ in range(MOST + 1):
                assert await post(gateway, body) in (400, 413)
        for _ in range(MOST):
            assert isinstance(await post(gateway), dict)
        await gateway.close()
        assert isinstance(await post(gateway), dict)
        await gateway.close()

    asyncio.run(test())
