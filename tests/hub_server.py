"""A hub on this machine: the few answers of the real one that a download needs.

It can hang up in the midst of a file, as networks do, and remembers what was asked of it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves `files`, "OWNER/NAME/path" to contents; a context manager."""

    def __init__(self, files: Mapping[str, bytes], *, hang_up_at: int | None = None) -> None:
        """The first answer of a file longer than `hang_up_at` bytes breaks off there."""
        self.ranges: list[str] = []
        self._files = files
        self._hang_up_at = hang_up_at
        self._broken: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                name = self.path.lstrip("/").replace("/resolve/main/", "/")
                name = name.replace(f"/resolve/{COMMIT}/", "/")
                body = hub._files.get(name)
                if body is None:
                    self._head(404, 0, b"", error="EntryNotFound")
                    return
                start = 0
                if asked := self.headers.get("Range"):
                    hub.ranges.append(asked)
                    start = int(asked.removeprefix("bytes=").split("-")[0])
                rest = body[start:]
                self._head(206 if asked else 200, len(rest), body, start=start)
                if not with_body:
                    return
                limit = hub._hang_up_at
                if limit is not None and len(rest) > limit and name not in hub._broken:
                    hub._broken.add(name)
                    self.wfile.write(rest[:limit])
                    self.wfile.flush()
                    self.close_connection = True
                    return
                self.wfile.write(rest)

            def _head(
                self, status: int, length: int, body: bytes, *, start: int = 0, error: str = ""
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.send_header("X-Repo-Commit", COMMIT)
                if error:
                    self.send_header("X-Error-Code", error)
                else:
                    self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                    self.send_header("Accept-Ranges", "bytes")
                if status == 206:
                    end = f"{start}-{len(body) - 1}/{len(body)}"
                    self.send_header("Content-Range", f"bytes {end}")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
