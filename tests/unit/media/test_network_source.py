"""Streams over loopback: read, lost, told; and what may be shown of an address."""

from __future__ import annotations

import _thread
import http.server
import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from streamgen.clock import MonotonicClock, SimulatedClock
from streamgen.errors import SourceError
from streamgen.media.opening import open_source
from streamgen.media.sources import network
from streamgen.media.sources.network import NetworkStream, without_password
from streamgen.types import PictureSize
from tests.media_files import grey, grey_ramp, number_of, write_video

SIZE = PictureSize(48, 64)


class Pages(http.server.BaseHTTPRequestHandler):
    """/film.mp4 is a film, /list.m3u8 names a file of this machine, /live is endless JPEG."""

    film = b""

    def do_GET(self) -> None:
        if self.path == "/live":
            self._send_live()
            return
        data = {"/film.mp4": self.film, "/list.m3u8": b"#EXTM3U\nfile:///etc/passwd\n"}
        body = data.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def _send_live(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
        self.end_headers()
        try:
            for index in itertools.count():
                jpeg = cv2.imencode(".jpg", grey(20 + 10 * (index % 8)))[1].tobytes()
                head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    film = write_video(
        tmp_path / "film.mp4", grey_ramp(6), container_options={"movflags": "faststart"}
    )
    pages = type("Served", (Pages,), {"film": film.read_bytes()})
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), pages)
    web.daemon_threads = True
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{web.server_address[1]}"
    web.shutdown()
    web.server_close()


def test_a_film_behind_an_address_is_a_film_with_an_end(server: str):
    source = open_source(f"{server}/film.mp4", clock=SimulatedClock(), size=SIZE, plays=2)
    assert not source.facts.is_live
    numbers = [number_of(frame.pixels) for frame in iter(source.read, None)]
    source.close()
    assert numbers == [0, 1, 2, 3, 4, 5] * 2


def test_motion_jpeg_is_live(server: str):
    source = open_source(f"{server}/live", clock=MonotonicClock(), size=SIZE)
    assert source.facts.is_live
    assert source.facts.is_endless
    numbers = [number_of(frame.pixels) for _ in range(10) if (frame := source.read())]
    source.close()
    assert numbers == [(numbers[0] + index) % 8 for index in range(10)]


def test_an_address_cannot_lead_to_a_file_of_this_machine(server: str):
    with pytest.raises(SourceError) as caught:
        open_source(f"{server}/list.m3u8", clock=SimulatedClock(), size=SIZE)
    assert "root:" not in str(caught.value)


def test_what_does_not_answer_is_told_in_one_line_without_the_password(server: str):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        for spec in (f"rtsp://me:secret@127.0.0.1:{port}/x", f"tcp://127.0.0.1:{port}"):
            with pytest.raises(SourceError, match=r"cannot open .*127\.0\.0\.1") as caught:
                open_source(spec, clock=SimulatedClock(), size=SIZE)
            assert "secret" not in str(caught.value)
            assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="cannot open"):
        open_source(f"{server}/none.mp4", clock=SimulatedClock(), size=SIZE)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """It accepts connections, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_who_accepts_and_says_nothing_is_told_in_one_line(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(network, "OPEN_TIMEOUT_S", 0.5)
    with pytest.raises(SourceError, match=r"does not answer within 0\.5 s; check the address$"):
        NetworkStream(f"tcp://127.0.0.1:{silent.getsockname()[1]}", clock=MonotonicClock())


def test_nobody_who_sends_is_told_to_whoever_listens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "LISTEN_TIMEOUT_S", 0.5)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    with pytest.raises(SourceError, match=r"nobody sent pictures to .* within 0\.5 s; start"):
        NetworkStream(f"rtmp://127.0.0.1:{port}/live/x?listen", clock=MonotonicClock())


def test_an_interruption_counts_while_nobody_answers(silent: socket.socket):
    """And not when FFmpeg has lost its patience."""
    has_ended = threading.Event()

    def interrupt() -> None:
        connection, _ = silent.accept()
        with connection:
            _thread.interrupt_main()
            has_ended.wait()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        NetworkStream(f"tcp://127.0.0.1:{silent.getsockname()[1]}", clock=MonotonicClock())
    assert "network-opening" in [thread.name for thread in threading.enumerate()]
    has_ended.set()


def test_passwords_in_addresses_are_not_shown():
    assert without_password("rtsp://me:secret@host:554/x?y=1") == "rtsp://***@host:554/x?y=1"
    assert without_password("rtsp://host/x") == "rtsp://host/x"


def test_mpeg_ts_over_tcp_is_read_and_its_end_is_a_loss(tmp_path: Path):
    """An end means that the sender has gone: SteadySource then holds the picture. What came while
    the stream was being recognised is left out, for it is old by then."""
    film = write_video(
        tmp_path / "film.ts", grey_ramp(12) * 20, codec_options={"bf": "0", "g": "12"}
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def send() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(film.read_bytes())

        threading.Thread(target=send, daemon=True).start()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        stream = NetworkStream(address, clock=MonotonicClock())
        numbers: list[int] = []
        while (pixels := stream.grab()) is not None:
            numbers.append(number_of(pixels))
        stream.close()
    assert 100 < len(numbers) <= 240
    assert numbers[-12:] == list(range(12))
