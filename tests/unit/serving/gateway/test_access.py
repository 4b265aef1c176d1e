"""Who may come in."""

from __future__ import annotations

import asyncio

import pytest

from streamgen.serving.gateway.access import (
    AccessControl,
    Message,
    Receive,
    Scope,
    Send,
    is_loopback,
    new_token,
)

TOKEN = "a-secret"
LOCAL = {"host": "127.0.0.1:7860"}
Headers = dict[str, str]


async def _inside(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "inside"})


def ask(
    *,
    token: str | None = None,
    path: str = "/",
    query: str = "",
    headers: Headers,
    kind: str = "http",
) -> list[Message]:
    """What is sent in answer; [{"type": "inside"}] if the request came in."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read before access is granted")

    scope: Scope = {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    control = AccessControl(_inside, token=token, is_https=False)
    asyncio.run(control(scope, receive, send))
    return sent


def comes_in(sent: list[Message]) -> bool:
    return sent == [{"type": "inside"}]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:80"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_this_machine_comes_in_without_a_token(host: str, kind: str):
    assert comes_in(ask(headers={"host": host}, kind=kind))


@pytest.mark.parametrize("host", ["evil.example", "192.168.0.7:7860", "127.0.0.1.evil.example", ""])
def test_a_name_that_was_made_to_mean_this_machine_does_not(host: str):
    assert ask(headers={"host": host})[0]["status"] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "null"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_pages_of_other_sites_do_not_come_in(origin: str, token: str | None):
    headers = {**LOCAL, "origin": origin, "cookie": f"streamgen_token={TOKEN}"}
    assert ask(token=token, headers=headers)[0]["status"] == 403
    closed = ask(token=token, headers=headers, kind="websocket")[0]
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


def test_its_own_page_comes_in():
    assert comes_in(ask(headers={**LOCAL, "origin": "http://127.0.0.1:7860"}, kind="websocket"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cookie": "streamgen_token=another"},
        {"cookie": "streamgen_token="},
        {"cookie": "=;=="},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer"},
    ],
)
def test_without_the_token_nobody_comes_in(headers: Headers):
    for host in ("127.0.0.1", "stream.example"):
        assert ask(token=TOKEN, headers={"host": host, **headers})[0]["status"] == 403
    assert ask(token=TOKEN, query="token=wrong", headers=LOCAL)[0]["status"] == 403


@pytest.mark.parametrize(
    "headers",
    [{"cookie": f"other=1; streamgen_token={TOKEN}"}, {"authorization": f"Bearer {TOKEN}"}],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_with_the_token_one_comes_in_by_any_name(headers: Headers, kind: str):
    assert comes_in(ask(token=TOKEN, headers={"host": "stream.example", **headers}, kind=kind))


def test_the_token_leaves_the_address_for_a_cookie_that_no_script_reads():
    start, _ = ask(token=TOKEN, path="/page", query=f"token={TOKEN}", headers=LOCAL)
    headers = dict(start["headers"])
    assert start["status"] == 303
    assert headers[b"location"] == b"/page"
    assert headers[b"set-cookie"] == (
        b"streamgen_token=a-secret; Path=/; HttpOnly; SameSite=Strict"
    )


@pytest.mark.parametrize("path", ["//evil.example", "/a\r\nset-cookie: b=c"])
def test_the_way_on_leads_nowhere_else(path: str):
    start, _ = ask(token=TOKEN, path=path, query=f"token={TOKEN}", headers=LOCAL)
    location = dict(start["headers"])[b"location"]
    assert not location.startswith(b"//")
    assert b"\n" not in location


def test_whoever_watches_over_the_process_needs_no_token():
    for path in ("/livez", "/readyz"):
        assert comes_in(ask(token=TOKEN, path=path, headers={"host": "10.0.0.1"}))
    assert ask(token=TOKEN, path="/metrics", headers=LOCAL)[0]["status"] == 403


def test_tokens_differ_and_are_long():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 24


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("localhost.", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(host: str, expected: bool):
    assert is_loopback(host) is expected
