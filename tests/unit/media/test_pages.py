"""Outputs that people look at in a browser or in OBS: MJPEG and WHEP; and WHIP to a server."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import cv2
import numpy as np
import pytest

from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError, SinkError
from streamgen.media.outlet import Pace
from streamgen.media.outputs import plan_sink
from streamgen.media.sinks.mjpeg import MjpegSink
from streamgen.media.sinks.viewers import PageAddress, Reply, Request, ViewerServer, page_address
from streamgen.media.sinks.whep import WhepSink
from streamgen.media.sinks.whip import WhipSink, WhipTarget, whip_target
from streamgen.types import Frame, PictureSize
from tests.media_files import grey

aiortc = pytest.importorskip("aiortc")

SIZE = PictureSize(48, 64)
HERE = PageAddress("127.0.0.1", 0, "")
TIMEOUT_S = 30.0


def shown(value: int) -> Frame:
    return Frame(grey(value), 0.0, 0.0)


@pytest.fixture
def mjpeg() -> Iterator[MjpegSink]:
    sink = MjpegSink(HERE, SIZE)
    yield sink
    sink.close()


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def jpeg_value(jpeg: bytes) -> float:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return float(picture.mean())


def test_a_viewer_sees_the_newest_picture_each_time_it_has_taken_one(mjpeg: MjpegSink) -> None:
    mjpeg.write(shown(50))
    with urllib.request.urlopen(f"{mjpeg.url}stream.mjpg", timeout=TIMEOUT_S) as stream:
        assert stream.headers["Content-Type"].startswith("multipart/x-mixed-replace; boundary=")
        for value in (50, 90, 130):
            mjpeg.write(shown(value))
            seen = 0.0
            while abs(seen - value) > 2:
                assert stream.readline() == b"--streamgen-frame\r\n"
                assert stream.readline() == b"Content-Type: image/jpeg\r\n"
                length = int(stream.readline().split(b":")[1])
                assert stream.readline() == b"\r\n"
                seen = jpeg_value(stream.read(length))
                assert stream.readline() == b"\r\n"


def test_a_viewer_that_takes_nothing_holds_up_neither_the_sink_nor_others(
    mjpeg: MjpegSink,
) -> None:
    """Its socket is full after some pictures; writing goes on, and so does another viewer."""
    chance = np.random.default_rng(0)
    noisy = chance.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    stuck = socket.create_connection(("127.0.0.1", mjpeg._server.address.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for _ in range(2000):
        mjpeg.write(Frame(noisy, 0.0, 0.0))
    mjpeg.write(shown(77))
    status, jpeg = get(f"{mjpeg.url}snapshot.jpg")
    assert status == HTTPStatus.OK
    assert abs(jpeg_value(jpeg) - 77) < 2
    stuck.close()


def test_the_page_shows_the_stream_and_there_is_no_picture_before_the_first(
    mjpeg: MjpegSink,
) -> None:
    status, page = get(mjpeg.url)
    assert status == HTTPStatus.OK
    assert b'src="stream.mjpg"' in page
    assert get(f"{mjpeg.url}snapshot.jpg")[0] == HTTPStatus.SERVICE_UNAVAILABLE
    assert get(f"{mjpeg.url}etc/passwd")[0] == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "attacker.example"}, 403),
        ({"Origin": "http://127.0.0.1:7860"}, 200),
        ({"Origin": "https://attacker.example"}, 403),
    ],
)
def test_pages_of_other_sites_do_not_reach_this_machine_s_own(
    mjpeg: MjpegSink, headers: dict[str, str], status: int
) -> None:
    assert get(mjpeg.url, headers)[0] == status


def test_who_has_the_token_comes_in_and_nobody_else() -> None:
    sink = MjpegSink(PageAddress("127.0.0.1", 0, "s3cret"), SIZE)
    place = sink.url.partition("?")[0]
    assert sink.url.endswith("?token=s3cret")
    assert get(place)[0] == HTTPStatus.UNAUTHORIZED
    assert get(f"{place}?token=wrong")[0] == HTTPStatus.UNAUTHORIZED
    assert get(f"{place}?token=%F0%9F%8E%A5")[0] == HTTPStatus.UNAUTHORIZED
    status, page = get(sink.url)
    assert status == HTTPStatus.OK
    assert b'src="stream.mjpg?token=s3cret"' in page
    assert get(place, {"Authorization": "Bearer s3cret"})[0] == HTTPStatus.OK
    sink.close()


def test_an_address_beyond_this_machine_gets_a_token_of_its_own() -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert page_address(f"mjpeg://{host}:8090").token == ""
    tokens = {page_address(f"mjpeg://{host}:8090").token for host in ("0.0.0.0", "192.168.1.2")}
    assert len(tokens) == 2
    assert all(len(token) > 20 for token in tokens)
    assert page_address("mjpeg://0.0.0.0:8090/?token=mine").token == "mine"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mjpeg:", "names no host and port; write mjpeg://127.0.0.1:8090"),
        ("mjpeg://127.0.0.1", "names no host and port"),
        ("whep://:8090", "names no host and port"),
        ("mjpeg://127.0.0.1:70000", "Port out of range"),
        ("whip:room", "write whip:https://host/whip/room"),
        ("whip:ftp://host/room", "write whip:https://host/whip/room"),
        ("whip:http://host:x/room", "Port could not be cast"),
    ],
)
def test_an_address_that_cannot_be_is_told_before_anything_is_opened(
    spec: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_sink(spec, size=SIZE, fps=16)


def test_a_port_that_is_taken_is_told_in_one_line(mjpeg: MjpegSink) -> None:
    port = mjpeg._server.address.port
    with pytest.raises(SinkError, match=f"cannot serve 127.0.0.1:{port}: Address already in use"):
        plan_sink(f"mjpeg://127.0.0.1:{port}", size=SIZE, fps=16).open()
    with pytest.raises(SinkError, match="cannot serve"):
        plan_sink(f"whep://127.0.0.1:{port}", size=SIZE, fps=16).open()


def test_tokens_and_keys_are_in_no_name() -> None:
    for spec, name, pace in (
        ("mjpeg://127.0.0.1:1/?token=s3cret", "mjpeg://127.0.0.1:1", Pace.SHOWN),
        ("whep://127.0.0.1:1/?token=s3cret", "whep://127.0.0.1:1", Pace.CONSTANT),
        ("whip:https://s3cret@host/whip/s3cret", "whip:https://host/whip/...", Pace.CONSTANT),
        ("rtmp://me:s3cret@host/live/s3cret", "rtmp://host/live/...", Pace.CONSTANT),
    ):
        plan = plan_sink(spec, size=SIZE, fps=16)
        assert (plan.name, plan.pace) == (name, pace)


def test_rubbish_is_refused_and_the_server_goes_on(mjpeg: MjpegSink) -> None:
    port = mjpeg._server.address.port
    for data in (b"\0\xff" * 100 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(TIMEOUT_S)
            with contextlib.suppress(ConnectionError):
                while connection.recv(4096):
                    pass
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.putrequest("POST", "/whep")
    connection.putheader("Content-Length", "999999999")
    connection.endheaders()
    assert connection.getresponse().status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    connection.close()
    assert get(mjpeg.url)[0] == HTTPStatus.OK


async def watch(url: str, num_frames: int) -> tuple[list[np.ndarray], str]:
    """Ask a WHEP endpoint for its stream, take some pictures, and where to end it."""
    peer = aiortc.RTCPeerConnection()
    peer.addTransceiver("video", direction="recvonly")
    tracks: asyncio.Queue = asyncio.Queue()
    peer.on("track", tracks.put_nowait)
    await peer.setLocalDescription(await peer.createOffer())

    def post() -> tuple[str, str]:
        body = peer.localDescription.sdp.encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/sdp"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            assert response.status == HTTPStatus.CREATED
            return response.headers["Location"], response.read().decode()

    location, answer = await asyncio.to_thread(post)
    await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
    track = await tracks.get()
    pictures = [(await track.recv()).to_ndarray(format="rgb24") for _ in range(num_frames)]
    await peer.close()
    return pictures, location


@contextlib.contextmanager
def writing(write: Callable[[Frame], None], value: int) -> Iterator[None]:
    """Write pictures as a stream does, 30 a second, as long as the block runs."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(1 / 30):
            write(shown(value))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_whep_viewer_gets_the_pictures_and_can_leave() -> None:
    sink = WhepSink(HERE, SIZE, MonotonicClock())
    with writing(sink.write, 150):
        pictures, location = asyncio.run(
            asyncio.wait_for(watch(f"{sink.url}whep", 5), timeout=TIMEOUT_S)
        )
    assert pictures[-1].shape == (48, 64, 3)
    assert abs(pictures[-1].mean() - 150) < 12
    end = urllib.request.Request(f"{sink.url.rstrip('/')}{location}", method="DELETE")
    with urllib.request.urlopen(end, timeout=TIMEOUT_S) as response:
        assert response.status == HTTPStatus.OK
    assert sink._rtc.num_peers == 0
    for body in (b"", b"v=0\r\n", b"\xff\xfe"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{sink.url}whep", body, timeout=TIMEOUT_S)
        caught.value.close()
        assert caught.value.code == HTTPStatus.BAD_REQUEST
    assert sink._rtc.num_peers == 0
    assert b"RTCPeerConnection" in get(sink.url)[1]
    sink.close()


class WhipServer:
    """What a WHIP server is to its client, made of aiortc: takes one stream in."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.peers: list = []
        self.values: list[float] = []
        self.tokens: list[str] = []
        self.num_ended = 0
        self.server = ViewerServer(
            PageAddress("127.0.0.1", 0, "s3cret"),
            {"POST /whip": self._take, "DELETE /whip/1": self._end},
        )
        self.url = f"http://127.0.0.1:{self.server.address.port}/whip"

    def _take(self, request: Request) -> Reply:
        assert b"a=sendonly" in request.body
        work = asyncio.run_coroutine_threadsafe(self._answer(request.body.decode()), self.loop)
        answer = work.result(TIMEOUT_S).encode()
        return Reply(HTTPStatus.CREATED, answer, "application/sdp", {"Location": "/whip/1"})

    async def _answer(self, offer: str) -> str:
        peer = aiortc.RTCPeerConnection()
        self.peers.append(peer)
        peer.on("track", lambda track: asyncio.ensure_future(self._read(track)))
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def _read(self, track: Any) -> None:
        with contextlib.suppress(aiortc.mediastreams.MediaStreamError):
            while True:
                frame = await track.recv()
                self.values.append(float(frame.to_ndarray(format="rgb24").mean()))

    def _end(self, request: Request) -> Reply:
        self.num_ended += 1
        return Reply(HTTPStatus.OK)

    def hang_up(self) -> None:
        for peer in self.peers:
            asyncio.run_coroutine_threadsafe(peer.close(), self.loop).result(TIMEOUT_S)

    def close(self) -> None:
        self.hang_up()
        self.server.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def whip() -> Iterator[WhipServer]:
    server = WhipServer()
    yield server
    server.close()


def until(is_true: Callable[[], bool]) -> None:
    """Wait for what other threads do; never longer than a broken test may take."""
    patience = threading.Event()
    for _ in range(int(TIMEOUT_S / 0.02)):
        if is_true():
            return
        patience.wait(0.02)
    raise AssertionError("it did not happen")


def test_a_whip_server_takes_the_stream_until_it_ends(whip: WhipServer) -> None:
    target = whip_target(whip.url.replace("http://", "whip:http://s3cret@").removeprefix("whip:"))
    assert target == WhipTarget(whip.url, "s3cret")
    sink = WhipSink(target, SIZE, MonotonicClock())
    with writing(sink.write, 180):
        until(lambda: len(whip.values) >= 5)
    assert abs(whip.values[-1] - 180) < 12
    sink.close()
    assert whip.num_ended == 1


def test_a_whip_server_that_hangs_up_or_refuses_is_a_sink_error(whip: WhipServer) -> None:
    sink = WhipSink(WhipTarget(whip.url, "s3cret"), SIZE, MonotonicClock())
    sink.write(shown(10))
    whip.hang_up()
    with pytest.raises(SinkError, match="the connection is lost"):
        until(lambda: sink.write(shown(10)) is not None)
    sink.abort()
    with pytest.raises(SinkError, match="refused: 401 Unauthorized; check address and token"):
        WhipSink(WhipTarget(whip.url, "wrong"), SIZE, MonotonicClock())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SinkError, match="Connection refused"):
        WhipSink(WhipTarget(f"http://127.0.0.1:{port}/whip", ""), SIZE, MonotonicClock())
