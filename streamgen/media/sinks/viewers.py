"""A small HTTP server for those who look at a live output, in threads of its own.

    mjpeg://127.0.0.1:8090   whep://0.0.0.0:8090/?token=...

Bound to the address it is told. Off this machine, everybody needs the token; without one, a request
must name this machine as its host, so that no page of another site reaches it under a name that was
made to mean 127.0.0.1 (DNS rebinding). Knows neither pictures nor WebRTC: a sink brings its paths.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

from streamgen.errors import ConfigError, SinkError

logger = logging.getLogger(__name__)

SOCKET_TIMEOUT_S = 10.0  # a viewer that takes nothing for so long has gone
MAX_BODY_BYTES = 65_536  # the offer of a WebRTC session is a tenth of that
MAX_REQUESTS = 32  # at a time: a viewer of a stream holds one
TOKEN_BYTES = 18


@dataclass(frozen=True, slots=True)
class PageAddress:
    """Where a page is served, and the token that opens it; "" for this machine alone."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = f"?token={quote(self.token)}" if self.token else ""
        return f"http://{host}:{self.port}/{query}"


def page_address(spec: str) -> PageAddress:
    """Understand `scheme://host:port/?token=...`; port 0 takes a free one. Raises ConfigError.

    An address beyond this machine gets a token if it has none.
    """
    try:
        parts = urlsplit(spec)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            f"-o {spec}: {error}; write {spec.partition(':')[0]}://127.0.0.1:8090"
        ) from error
    if not parts.hostname or port is None:
        raise ConfigError(
            f"-o {spec} names no host and port; write {parts.scheme}://127.0.0.1:8090"
        )
    token = parse_qs(parts.query).get("token", [""])[-1]
    if not is_loopback(parts.hostname) and not token:
        token = secrets.token_urlsafe(TOKEN_BYTES)
    return PageAddress(parts.hostname, port, token)


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine, and no other one can use it."""
    if host.lower().rstrip(".") == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer to a request."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler of a path sees; `write` sends bytes of an answer that has no end."""

    path: str
    body: bytes
    token: str
    begin: Callable[[str], None]  # sends status and headers, with the content type
    write: Callable[[bytes], object]  # raises OSError when the viewer has gone


Handler = Callable[[Request], Reply | None]
"""Answers a request, or begins and writes until the viewer has gone, and gives None."""


class ViewerServer:
    """Serves `routes`, {"GET /path": handler}; a path that ends in /* takes what begins so."""

    def __init__(self, address: PageAddress, routes: Mapping[str, Handler]) -> None:
        """Raises SinkError if the port is taken or the address is not this machine's."""
        self._routes = routes
        self._places = threading.BoundedSemaphore(MAX_REQUESTS)
        try:
            self._server = _Server((address.host, address.port), self._handler_class(address))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SinkError(
                f"cannot serve {address.host}:{address.port}: {reason}; choose another port"
            ) from error
        self.address = PageAddress(address.host, self._server.server_address[1], address.token)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Take no more requests; those that have no end see it with their next write."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, request: Request) -> Reply | None:
        """What the handler of this path says; 404 if there is none."""
        for route, handler in self._routes.items():
            wanted, _, path = route.partition(" ")
            prefix = path.removesuffix("*")
            is_it = request.path.startswith(prefix) if path.endswith("*") else request.path == path
            if wanted == method and is_it:
                return handler(request)
        return Reply(HTTPStatus.NOT_FOUND, b"there is nothing here\n")

    def _handler_class(self, address: PageAddress) -> type[BaseHTTPRequestHandler]:
        server = self

        class Connection(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = SOCKET_TIMEOUT_S

            def _serve(self) -> None:
                if not server._places.acquire(blocking=False):
                    self._send(Reply(HTTPStatus.SERVICE_UNAVAILABLE, b"too many viewers\n"))
                    return
                try:
                    self._answer()
                except OSError:
                    self.close_connection = True
                finally:
                    server._places.release()

            def _answer(self) -> None:
                refusal = _refusal(self, address)
                if refusal is not None:
                    self._send(refusal)
                    return
                length = self.headers.get("Content-Length", "0")
                num_bytes = int(length) if length.isascii() and length.isdecimal() else -1
                if not 0 <= num_bytes <= MAX_BODY_BYTES:
                    self.close_connection = True
                    self._send(Reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"too long\n"))
                    return
                request = Request(
                    path=urlsplit(self.path).path,
                    body=self.rfile.read(num_bytes),
                    token=address.token,
                    begin=self._begin,
                    write=self.wfile.write,
                )
                reply = server.answer(self.command, request)
                if reply is not None:
                    self._send(reply)

            do_GET = do_POST = do_DELETE = do_OPTIONS = _serve  # the names that http.server calls

            def _begin(self, content_type: str) -> None:
                self.close_connection = True
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", content_type)
                self.send_header("Cache-Control", "no-store")
                self.send_header("Connection", "close")
                self.end_headers()

            def _send(self, reply: Reply) -> None:
                if reply.status >= HTTPStatus.BAD_REQUEST:
                    self.close_connection = True  # a body that was not read may follow
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body)))
                self.send_header("Cache-Control", "no-store")
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:
                logger.debug("%s", format % args)

        return Connection


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a viewer that hangs is left behind

    def handle_error(self, request: object, client_address: object) -> None:
        logger.debug("a viewer's connection failed", exc_info=True)


def _refusal(connection: BaseHTTPRequestHandler, address: PageAddress) -> Reply | None:
    """Why this request gets nothing; None if it may come in."""
    if address.token:
        query = parse_qs(urlsplit(connection.path).query).get("token", [""])[-1]
        bearer = connection.headers.get("Authorization", "").removeprefix("Bearer ")
        wanted = address.token.encode()
        if any(hmac.compare_digest(given.encode(), wanted) for given in (query, bearer)):
            return None
        return Reply(HTTPStatus.UNAUTHORIZED, b"open the address with its ?token=\n")
    host = urlsplit(f"//{connection.headers.get('Host', '')}").hostname or ""
    origin = connection.headers.get("Origin")
    is_ours = origin is None or is_loopback(urlsplit(origin).hostname or "")
    if is_loopback(host) and is_ours:
        return None
    return Reply(HTTPStatus.FORBIDDEN, b"this page is for this machine alone\n")
