"""The HTTP side of a server, beside streams that run."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import pairwise

import pytest

from streamgen.serving.gateway.api import MAX_SNAPSHOT_BYTES
from tests.live_server import LiveServer, live_server
from tests.unit.serving.gateway.test_server import SMALL, TEXT, WAIT_S, Json, page_of, run

WORDS = "a red ball bouncing over a green field"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server({TEXT: SMALL}, num_places=2) as running:
        yield running


def ask(server: LiveServer, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}{path}", data, method=method)
    if not isinstance(body, bytes):
        request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


async def asked(server: LiveServer, method: str, path: str, body: object = None) -> Json:
    status, data = await asyncio.to_thread(ask, server, method, path, body)
    return {"status": status, **(json.loads(data) if data[:1] == b"{" else {})}


def test_sessions_are_listed_changed_and_ended_from_outside(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            granted = await page.start(TEXT, WORDS)
            one = f"/streamgen/sessions/{granted['session']}"
            facts = await asked(server, "GET", one)
            assert facts["granted"]["prompt"] == WORDS
            assert facts["granted"]["quality"] == "full"
            listed = await asyncio.to_thread(ask, server, "GET", "/streamgen/sessions")
            assert [each["session"] for each in json.loads(listed[1])] == [granted["session"]]
            changed = await asked(server, "PATCH", one, {"prompt": "a blue star"})
            assert (changed["status"], changed["prompt"]) == (200, "a blue star")
            assert (await page.hear("granted"))["prompt"] == "a blue star"
            assert (await asked(server, "DELETE", one))["status"] == 204
            await page.hear("ended")
            gone = await asked(server, "GET", one)
            assert (gone["status"], gone["retryable"]) == (404, False)

    run(test())


def test_a_session_that_is_paused_from_outside_shows_nothing_until_it_goes_on(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as page:
            granted = await page.start(TEXT, WORDS)
            one = f"/streamgen/sessions/{granted['session']}"
            await asked(server, "PATCH", one, {"is_paused": True})
            assert (await asked(server, "GET", one))["is_paused"]
            await asked(server, "PATCH", one, {"is_paused": False})
            page.pictures.clear()
            await page.picture()

    run(test())


def test_a_stream_goes_on_from_its_snapshot_where_the_first_one_left(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as first, page_of(server) as second:
            granted = await first.start(TEXT, WORDS, seed=5)
            for _ in range(6):
                last = await first.picture()
            path = f"/streamgen/sessions/{granted['session']}/snapshot?leave=true"
            status, snapshot = await asyncio.to_thread(ask, server, "POST", path)
            assert status == 200
            await first.hear("ended")
            stamps = [last.stamp_ms, *(picture.stamp_ms for picture in first.pictures)]
            held = await asked(server, "POST", "/streamgen/snapshots", snapshot)
            assert held["status"] == 201
            again = await second.start(TEXT, WORDS, seed=5, snapshot=held["snapshot"])
            assert again["seed"] == 5
            for _ in range(6):
                stamps.append((await second.picture()).stamp_ms)
            steps = [round(16 * (a - b) / 1000, 6) for a, b in pairwise(stamps)]
            assert min(steps) >= 1  # none twice; that none is left out is in test_snapshot.py
            await second.say(type="start", preset=TEXT, prompt=WORDS, snapshot=held["snapshot"])
            assert "no snapshot of that name" in (await second.hear("problem"))["message"]

    run(test())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        (
            "PATCH",
            "/streamgen/sessions/none",
            {"prompt": "ice"},
            404,
            "no session 'none'",
        ),
        ("PATCH", "/streamgen/sessions/none", {"path": "/etc/passwd"}, 400, "path: Extra inputs"),
        ("PATCH", "/streamgen/sessions/none", {"prompt": 3}, 400, "prompt: Input should be"),
        ("PATCH", "/streamgen/sessions/none", {"prompt": "x" * 30_000}, 400, "at most 20000"),
        ("DELETE", "/streamgen/sessions/..%2F..", None, 404, ""),
        ("POST", "/streamgen/sessions/none/snapshot", None, 404, "no session"),
        ("POST", "/streamgen/snapshots", b"no snapshot", 400, "not a snapshot"),
        ("POST", "/streamgen/snapshots", b"\xff" * 16, 400, "not a snapshot"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    server: LiveServer, method: str, path: str, body: object, status: int, words: str
):
    code, answer = ask(server, method, path, body)
    assert (code, words in answer.decode()) == (status, True), answer


def test_a_snapshot_that_is_too_long_is_not_read(server: LiveServer):
    """The server says so without having taken the whole of it."""
    head = (
        f"POST /streamgen/snapshots HTTP/1.1\r\nHost: {server.address}\r\n"
        f"Content-Length: {MAX_SNAPSHOT_BYTES + 2**20}\r\n\r\n"
    )

    async def test() -> None:
        host, port = server.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        assert b" 413 " in await asyncio.wait_for(reader.readline(), WAIT_S)
        writer.close()

    run(test())


def test_load_says_how_many_fit(server: LiveServer):
    load = json.loads(ask(server, "GET", "/streamgen/load")[1])
    assert (load["state"], load["places"], load["waiting"]) == ("ready", 2, 0)
    assert 1 <= load["capacity"] <= 2


def test_who_does_not_want_to_wait_is_told_when_to_come_again(server: LiveServer):
    async def test() -> None:
        async with page_of(server) as one, page_of(server) as two, page_of(server) as three:
            await one.start(TEXT, WORDS)
            await two.start(TEXT, WORDS)
            await three.say(type="start", preset=TEXT, prompt=WORDS, wait=False)
            problem = await three.hear("problem")
            assert (problem["retryable"], problem["fatal"]) == (True, True)
            assert problem["retry_after_s"] > 0

    run(test())
