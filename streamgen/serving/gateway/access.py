"""Who may come in: this machine alone, or whoever has the token; and no other site's pages.

A server on the loopback address is still reached by every page in the browser beside it: by a form,
a WebSocket, or a name that was made to mean 127.0.0.1. So the Host must be a name of this machine
and the Origin, where there is one, the server itself (OWASP, Cross-Site WebSocket Hijacking; DNS
rebinding).
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "streamgen_token"
PARAMETER = "token"
TOKEN_BYTES = 18
OPEN_PATHS = ("/livez", "/readyz")  # for whoever watches over the process; they tell nothing
POLICY_VIOLATION = 1008  # RFC 6455, 7.4.1


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine and no other can reach it."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A secret of 144 bits that may stand in an address."""
    return secrets.token_urlsafe(TOKEN_BYTES)


class AccessControl:
    """Wraps an ASGI application; everything but `OPEN_PATHS` needs access.

    Without a token the Host must be a name of this machine. With one, it comes once as `?token=`
    in the address, is kept in a cookie that scripts and other sites cannot read, and leaves the
    address; programs may send it as `Authorization: Bearer`.
    """

    def __init__(self, app: App, *, token: str | None, is_https: bool) -> None:
        self._app = app
        self._token = token
        self._is_https = is_https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(scope, send, refusal)
        elif scope["type"] == "http" and self._token and _given(scope) == self._token:
            await self._keep_token(scope, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        """Why this request may not come in; None if it may."""
        host = _header(scope, b"host")
        origin = _header(scope, b"origin")
        if origin and urlsplit(origin).netloc.lower() != host.lower():
            return "Pages of other sites may not use this server."
        if self._token is None:
            if is_loopback(urlsplit(f"//{host}").hostname or ""):
                return None
            return "This server is for its own machine; open it as 127.0.0.1 or localhost."
        token = self._token.encode()
        if any(hmac.compare_digest(offered.encode(), token) for offered in _offered(scope)):
            return None
        return "This server needs its token: open the address that it printed when it started."

    async def _keep_token(self, scope: Scope, send: Send) -> None:
        """Set the cookie and go to the same address without the token."""
        secure = "; Secure" if self._is_https else ""
        cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict{secure}"
        headers = [
            (b"set-cookie", cookie.encode()),
            (b"location", b"/" + quote(scope.get("path", "/").lstrip("/")).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _offered(scope: Scope) -> list[str]:
    """All that this request shows as a token."""
    offered = [_given(scope) or ""]
    scheme, _, value = _header(scope, b"authorization").partition(" ")
    if scheme.lower() == "bearer":
        offered.append(value.strip())
    with contextlib.suppress(CookieError):
        cookie = SimpleCookie(_header(scope, b"cookie"))
        if COOKIE in cookie:
            offered.append(cookie[COOKIE].value)
    return offered


def _given(scope: Scope) -> str | None:
    """What the address says."""
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get(PARAMETER, [None])[0]


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope.get("headers", ()):
        if key == name:
            return value.decode("latin-1")
    return ""


async def _refuse(scope: Scope, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
        return
    body = f"{reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
