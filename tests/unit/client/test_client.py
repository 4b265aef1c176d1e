"""The Python client against a server that runs."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from streamgen.client import Client
from streamgen.errors import ConfigError, ConnectionLostError, RefusedError
from streamgen.serving.gateway.bodies import SessionChange
from tests.live_server import LiveServer, live_server

SAME, TEXT = "identity-cpu", "tiny-cpu"
SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")
WORDS = "a red ball bouncing over a green field"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server({TEXT: SMALL, SAME: SMALL}, num_places=1, token="secret") as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Client:
    return Client(server.url, token="secret")


def in_order(places_s: list[float]) -> None:
    """Each picture of a stream at most once; who is slow misses some."""
    frames = [round(16 * place_s, 6) for place_s in places_s]
    assert frames == sorted(set(frames))
    assert all(frame.is_integer() for frame in frames)


def test_frames_of_words_come_in_order_and_the_prompt_changes(client: Client):
    with client.open(TEXT, prompt=WORDS, seed=3) as session:
        assert session.granted.seed == 3
        frames = list(itertools.islice(session, 8))
        session.change(prompt="a blue zeppelin over the sea at night")
        while session.granted.prompt == WORDS:
            next(session)
        assert session.granted.unknown_words == ["zeppelin"]
    in_order([frame.pts_s for frame in frames])
    assert frames[0].pixels.shape == (64, 64, 3)


def test_pictures_come_back_restyled_with_their_times(client: Client):
    shades = [10, 60, 120, 180, 240, 100]
    pictures = [np.full((48, 80, 3), shade, np.uint8) for shade in shades]
    with client.open(SAME, prompt="any") as session:
        frames = list(session.restyle(pictures, fps=10))
    assert frames
    for frame in frames:
        shade = shades[round(10 * frame.pts_s)]
        assert abs(float(frame.pixels.mean()) - shade) < 3


def test_a_stream_is_carried_to_another_session(client: Client):
    with client.open(TEXT, prompt=WORDS) as session:
        before = list(itertools.islice(session, 5))
        assert [each.session for each in client.sessions()] == [session.name]
        snapshot = client.snapshot(session.name, leave=True)
        before += list(session)
    with client.open(TEXT, prompt=WORDS, snapshot=snapshot, patience_s=5) as session:
        after = list(itertools.islice(session, 5))
    in_order([frame.pts_s for frame in [*before, *after]])


def test_a_session_is_changed_and_ended_by_its_name(client: Client):
    with client.open(TEXT, prompt=WORDS) as session:
        assert client.change(session.name, SessionChange(prompt="a star")).prompt == "a star"
        client.end(session.name)
        list(session)
        with pytest.raises(RefusedError, match="no session"):
            client.end(session.name)


def test_who_finds_no_place_is_told_when_to_come_again(client: Client):
    with client.open(TEXT, prompt=WORDS):
        with pytest.raises(RefusedError, match="places are taken") as refused:
            client.open(TEXT, prompt=WORDS, wait=False)
        assert refused.value.retryable
        assert refused.value.retry_after_s
        assert client.load().sessions == 1


def test_what_cannot_be_is_an_error_and_the_stream_goes_on(client: Client):
    with pytest.raises(RefusedError, match="no preset 'dall-e'") as refused:
        client.open("dall-e", prompt=WORDS)
    assert not refused.value.retryable
    with client.open(TEXT, prompt=WORDS) as session:
        session.change(steps=99)
        with pytest.raises(RefusedError, match="99"):
            for _ in session:
                pass
        next(session)


def test_a_stranger_is_told_that_a_token_is_needed(server: LiveServer):
    stranger = Client(server.url)
    assert stranger.is_ready()
    with pytest.raises(RefusedError, match="needs its token"):
        stranger.sessions()
    with pytest.raises(RefusedError, match="give its token"):
        stranger.open(TEXT, prompt=WORDS)


def test_the_api_describes_itself_to_who_has_the_token(server: LiveServer, client: Client):
    paths = json.loads(client._ask("GET", "/openapi.json"))["paths"]
    assert {"/livez", "/readyz", "/metrics", "/streamgen/sessions/{name}"} <= set(paths)
    with pytest.raises(RefusedError, match="needs its token"):
        Client(server.url)._ask("GET", "/openapi.json")


def test_pages_of_other_sites_are_refused_whatever_they_show(server: LiveServer):
    request = urllib.request.Request(f"{server.url}/streamgen/sessions")
    request.add_header("Authorization", "Bearer secret")
    request.add_header("Origin", "http://elsewhere.example")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 403
    assert "access-control-allow-origin" not in refused.value.headers
    refused.value.close()


def test_a_server_that_is_not_there_is_told():
    nobody = Client("http://127.0.0.1:9")
    assert not nobody.is_ready()
    with pytest.raises(ConnectionLostError, match="no server answers"):
        nobody.open(TEXT, prompt=WORDS)
    with pytest.raises(ConfigError, match="is no address"):
        Client("file:///etc/passwd")


def test_the_client_needs_no_torch_and_no_server_packages():
    code = (
        "import sys, streamgen.client\n"
        "print([name for name in ('torch', 'fastapi', 'gradio', 'av') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
