"""Visits of a running server, by WebSocket and by WebRTC, without a browser."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamgen.serving.gateway.messages import StampedPicture, pack_picture, unpack_picture
from streamgen.serving.gateway.socket_peer import encode_jpeg
from tests.live_server import LiveServer, live_server

SAME, TEXT, VIDEO = "identity-cpu", "tiny-cpu", "tiny-cpu-v2v"
SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")
WAIT_S = 30.0  # far more than anything here takes
Json = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server({VIDEO: SMALL, TEXT: SMALL, SAME: SMALL}, num_places=2) as running:
        yield running


class Page:
    """What a page does, in Python."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.pictures: list[StampedPicture] = []

    async def say(self, **message: object) -> None:
        await self._socket.send(json.dumps(message))

    async def show(self, shade: int, stamp_ms: float = 0.0) -> None:
        pixels = np.full((48, 80, 3), shade, np.uint8)
        await self._socket.send(pack_picture(StampedPicture(stamp_ms, encode_jpeg(pixels))))

    async def send_bytes(self, data: bytes) -> None:
        await self._socket.send(data)

    async def hear(self, kind: str) -> Json:
        """The next message of a type; pictures before it are kept and answered."""
        while True:
            data = await asyncio.wait_for(self._socket.recv(), WAIT_S)
            if isinstance(data, bytes):
                self.pictures.append(unpack_picture(data))
                await self.say(type="shown")
                continue
            message: Json = json.loads(data)
            if message["type"] == "problem" and kind != "problem":
                raise AssertionError(message["message"])
            if message["type"] == kind:
                return message

    async def picture(self) -> StampedPicture:
        """The next picture."""
        while not self.pictures:
            data = await asyncio.wait_for(self._socket.recv(), WAIT_S)
            if isinstance(data, bytes):
                await self.say(type="shown")
                return unpack_picture(data)
        return self.pictures.pop(0)

    async def start(self, preset: str = SAME, prompt: str = "ice", **more: object) -> Json:
        await self.say(type="start", preset=preset, prompt=prompt, **more)
        return await self.hear("granted")


@asynccontextmanager
async def page_of(server: LiveServer, **options: Any) -> AsyncGenerator[Page]:
    async with connect(f"ws://{server.address}/streamgen/socket", **options) as socket:
        page = Page(socket)
        await page.hear("offer")
        yield page


def shade_of(picture: StampedPicture) -> float:
    return float(np.asarray(Image.open(io.BytesIO(picture.jpeg))).mean())


def run(test: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 4 * WAIT_S))


async def is_empty(server: LiveServer) -> None:
    """Wait until no stream runs and no place is taken."""
    while server.gateway.host.num_streams() or server.gateway.places.num_inside:
        await asyncio.sleep(0.01)


def test_what_is_on_offer_comes_first(server: LiveServer):
    async def test() -> None:
        async with connect(f"ws://{server.address}/streamgen/socket") as socket:
            offer = json.loads(await socket.recv())
        assert [preset["name"] for preset in offer["presets"]] == [VIDEO, TEXT, SAME]
        assert offer["presets"][0]["steps"] == 4
        assert offer["places"] == 2

    run(test())


def test_pictures_come_back_with_the_time_that_the_page_gave_them(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            granted = await page.start()
            assert (granted["width"], granted["height"]) == (64, 64)
            for index, shade in enumerate((10, 120, 250)):
                await page.show(shade, 1000.5 + index)
                taken = await page.hear("taken")
                assert taken["fps"] == 30
                picture = await page.picture()
                assert picture.stamp_ms == pytest.approx(1000.5 + index)
                assert abs(shade_of(picture) - shade) < 3

    run(test())


def test_a_closed_connection_frees_its_place(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            await page.start()
            assert server.gateway.places.num_inside == 1
        await asyncio.wait_for(is_empty(server), 2)

    run(test())


def test_two_pages_never_mix(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as one, page_of(server) as other:
            await asyncio.gather(one.start(), other.start())
            for _ in range(10):
                for page, shade in ((one, 30), (other, 220)):
                    await page.show(shade)
                    assert abs(shade_of(await page.picture()) - shade) < 3

    run(test())


def test_who_finds_no_place_waits_and_is_let_in(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as one, page_of(server) as two, page_of(server) as three:
            await one.start()
            await two.start()
            await three.say(type="start", preset=SAME, prompt="ice")
            assert (await three.hear("waiting"))["position"] == 1
            await one.say(type="stop")
            await one.hear("ended")
            await three.hear("granted")
            await three.show(99)
            assert abs(shade_of(await three.picture()) - 99) < 3

    run(test())


def test_who_leaves_while_waiting_takes_no_place(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as one, page_of(server) as two:
            await one.start()
            await two.start()
            async with page_of(server) as three:
                await three.say(type="start", preset=SAME, prompt="ice")
                await three.hear("waiting")
        await asyncio.wait_for(is_empty(server), 2)
        assert server.gateway.places.num_waiting == 0

    run(test())


def test_words_alone_make_a_video_that_never_ends(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            granted = await page.start(TEXT, "a red zeppelin", steps=2, seed=9)
            assert granted["unknown_words"] == ["zeppelin"]
            assert (granted["steps"], granted["seed"], granted["takes_video"]) == (2, 9, False)
            places = [-1.0 - (await page.picture()).stamp_ms for _ in range(12)]
            assert places == sorted(set(places))
            assert all(place * 16 % 1000 == 0 for place in places)
            figures = await page.hear("figures")
            assert (figures["streams"], figures["places"]) == (1, 2)

    run(test())


def test_a_change_is_granted_and_an_impossible_one_is_a_problem(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            await page.start(VIDEO, "ice")
            await page.say(type="change", prompt="sepia film", strength=0.5)
            granted = await page.hear("granted")
            assert (granted["prompt"], granted["strength"]) == ("sepia film", 0.5)
            await page.say(type="change", prompt="xyzzy")
            problem = await page.hear("problem")
            assert "knows no word" in problem["message"]
            assert not problem["fatal"]
            await page.say(type="reset")
            assert (await page.hear("granted"))["prompt"] == "sepia film"

    run(test())


def test_a_stream_that_cannot_begin_is_a_fatal_problem_and_takes_no_place(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            for wishes in ({"prompt": ""}, {"steps": 40}, {"preset": "no-such"}):
                await page.say(**{"type": "start", "preset": VIDEO, "prompt": "ice", **wishes})
                await page.hear("problem")
            await asyncio.wait_for(is_empty(server), 2)
            await page.start()

    run(test())


def test_nonsense_is_told_and_the_stream_goes_on(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            await page.start()
            await page.say(type="explode")
            assert "explode" in (await page.hear("problem"))["message"]
            for data in (b"", b"12345678", b"12345678no picture", b"12345678\xff\xd8\xff\xe0"):
                await page.send_bytes(data)
                assert not (await page.hear("problem"))["fatal"]
            huge = io.BytesIO()
            Image.new("L", (12_000, 12_000)).save(huge, "JPEG")
            await page.send_bytes(b"12345678" + huge.getvalue())
            assert "too large" in (await page.hear("problem"))["message"]
            await page.show(77)
            assert abs(shade_of(await page.picture()) - 77) < 3

    run(test())


def test_a_message_beyond_all_measure_ends_the_connection_and_frees_the_place(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            await page.start()
            await page.send_bytes(bytes(4_000_001))
            with pytest.raises(ConnectionClosed):
                await page.hear("never")
        await asyncio.wait_for(is_empty(server), 2)

    run(test())


def test_a_pause_stops_the_pictures_and_going_on_brings_them_back(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            await page.start()
            await page.say(type="pause")
            await page.show(50)
            await page.hear("figures")
            assert page.pictures == []
            await page.say(type="resume")
            await page.show(60)
            assert abs(shade_of(await page.picture()) - 60) < 3

    run(test())


def test_a_page_of_another_site_is_refused(server: LiveServer):
    async def test() -> None:
        with pytest.raises(InvalidStatus):
            async with page_of(server, origin="http://evil.example"):
                pass

    run(test())


@pytest.mark.parametrize(
    ("path", "expected"), [("/livez", "alive"), ("/readyz", "ready"), ("/metrics", "places_taken")]
)
def test_whoever_watches_over_the_process_gets_an_answer(
    server: LiveServer, path: str, expected: str
):
    with urllib.request.urlopen(server.url + path, timeout=WAIT_S) as answer:
        assert expected in answer.read().decode()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"sdp": "v=0", "type": "offer"}', b"x" * 200_000])
def test_an_offer_that_is_none_is_refused(server: LiveServer, body: bytes):
    request = urllib.request.Request(f"{server.url}/streamgen/rtc", body, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=WAIT_S)
    assert caught.value.code in (400, 413)
    caught.value.close()


def test_pictures_and_messages_go_over_webrtc(server: LiveServer):
    """A green input comes back green through two video codecs and the engine."""
    aiortc = pytest.importorskip("aiortc", reason="WebRTC needs streamgen[webcam]")
    from streamgen.clock import MonotonicClock
    from streamgen.serving.gateway.rtc_peer import PictureTrack

    async def test() -> None:
        connection = aiortc.RTCPeerConnection()
        channel = connection.createDataChannel("messages")
        camera = PictureTrack(MonotonicClock())
        connection.addTrack(camera)
        heard: asyncio.Queue[Json] = asyncio.Queue()
        tracks: asyncio.Queue[Any] = asyncio.Queue()
        channel.on("message", lambda text: heard.put_nowait(json.loads(text)))
        connection.on("track", tracks.put_nowait)
        await connection.setLocalDescription(await connection.createOffer())
        answer = await asyncio.to_thread(_post_offer, server, connection.localDescription)
        await connection.setRemoteDescription(aiortc.RTCSessionDescription(**answer))
        await _until(heard, "offer")
        channel.send(json.dumps({"type": "start", "preset": SAME, "prompt": "any"}))
        await _until(heard, "granted")
        green = np.zeros((64, 64, 3), np.uint8)
        green[..., 1] = 200
        sending = asyncio.create_task(_send_pictures(camera, green, channel))
        track = await tracks.get()
        pixels = green[:0]
        while not pixels.size or abs(pixels[..., 1].mean() - 200) > 20:
            picture = await asyncio.wait_for(track.recv(), WAIT_S)
            pixels = picture.to_ndarray(format="rgb24")
        assert pixels.shape == (64, 64, 3)
        assert max(pixels[..., 0].mean(), pixels[..., 2].mean()) < 40
        sending.cancel()
        await connection.close()
        await asyncio.wait_for(is_empty(server), 2)

    run(test())


def _post_offer(server: LiveServer, description: Any) -> Json:
    body = json.dumps({"sdp": description.sdp, "type": description.type}).encode()
    request = urllib.request.Request(f"{server.url}/streamgen/rtc", body, method="POST")
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        return json.loads(answer.read())


async def _send_pictures(camera: Any, pixels: Any, channel: Any) -> None:
    while True:
        camera.put(pixels)
        channel.send('{"type": "shown"}')
        await asyncio.sleep(1 / 30)


async def _until(heard: asyncio.Queue[Json], kind: str) -> Json:
    while (message := await asyncio.wait_for(heard.get(), WAIT_S))["type"] != kind:
        assert message["type"] != "problem", message
    return message
