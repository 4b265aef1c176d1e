"""A server, as a program sees it: what it offers, who streams, and new sessions."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import TypeAdapter

from streamgen.client.session import Session
from streamgen.clock import Clock, MonotonicClock
from streamgen.errors import ConfigError, ConnectionLostError, RefusedError
from streamgen.serving.gateway.bodies import (
    Failure,
    HeldSnapshot,
    Load,
    SessionChange,
    SessionFacts,
)
from streamgen.serving.gateway.messages import GrantedSettings, PresetOffer, Start

SOCKET_PATH = "/streamgen/socket"
MAX_PICTURE_BYTES = 32_000_000  # from a server

_PRESETS = TypeAdapter(list[PresetOffer])
_SESSIONS = TypeAdapter(list[SessionFacts])


class Client:
    """One server. Holds no connection; sessions do."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:7860",
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        """ConfigError if `url` is no http or https address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"{url!r} is no address of a server; write http://HOST:PORT")
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s
        self._clock = clock or MonotonicClock()

    def is_ready(self) -> bool:
        """Whether streams can begin; False if there is no server."""
        try:
            self._ask("GET", "/readyz")
        except (RefusedError, ConnectionLostError):
            return False
        return True

    def presets(self) -> list[PresetOffer]:
        return _PRESETS.validate_json(self._ask("GET", "/streamgen/presets"))

    def sessions(self) -> list[SessionFacts]:
        return _SESSIONS.validate_json(self._ask("GET", "/streamgen/sessions"))

    def load(self) -> Load:
        return Load.model_validate_json(self._ask("GET", "/streamgen/load"))

    def change(self, session: str, change: SessionChange) -> GrantedSettings:
        """Change somebody's session by its name; RefusedError if it cannot be so."""
        body = change.model_dump_json(exclude_none=True).encode()
        answer = self._ask("PATCH", _path(session), body)
        return GrantedSettings.model_validate_json(answer)

    def end(self, session: str) -> None:
        self._ask("DELETE", _path(session))

    def snapshot(self, session: str, *, leave: bool = False) -> bytes:
        """Where a session is, for `open(snapshot=...)` on this or another server.

        With `leave` it ends when what is finished has been shown.
        """
        return self._ask("POST", f"{_path(session)}/snapshot?leave={str(leave).lower()}")

    def open(
        self,
        preset: str,
        *,
        prompt: str,
        seed: int | None = None,
        strength: float | None = None,
        steps: int | None = None,
        snapshot: bytes | None = None,
        wait: bool = True,
        patience_s: float = 0.0,
    ) -> Session:
        """Begin a session, or go on from a snapshot; returns when the server has granted it.

        With `wait`, stand in the server's line for a place. While the server says that it may work
        later, ask again for `patience_s`. Raises RefusedError or ConnectionLostError.
        """
        until_s = self._clock.now() + patience_s
        while True:
            try:
                held = None if snapshot is None else self._hold(snapshot)
                start = Start(
                    preset=preset, prompt=prompt, seed=seed, strength=strength, steps=steps,
                    snapshot=held, wait=wait,
                )  # fmt: skip
                return Session(self._connect(), start)
            except RefusedError as error:
                wait_s = error.retry_after_s or 1.0
                if not error.retryable or self._clock.now() + wait_s > until_s:
                    raise
                self._clock.sleep(wait_s)

    def _hold(self, snapshot: bytes) -> str:
        answer = self._ask("POST", "/streamgen/snapshots", snapshot, "application/octet-stream")
        return HeldSnapshot.model_validate_json(answer).snapshot

    def _connect(self) -> Any:
        from websockets.exceptions import InvalidHandshake
        from websockets.sync.client import connect

        url = f"ws{self._base.removeprefix('http')}{SOCKET_PATH}"
        try:
            socket = connect(
                url,
                additional_headers=self._headers,
                open_timeout=self._timeout_s,
                max_size=MAX_PICTURE_BYTES,
                compression=None,
            )
            return socket.__enter__()  # the session leaves it
        except InvalidHandshake as error:
            raise RefusedError(f"{url} does not let us in ({error}); give its token") from error
        except (OSError, TimeoutError) as error:
            raise ConnectionLostError(f"no server answers at {url}: {error}") from error

    def _ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> bytes:
        headers = self._headers | ({} if body is None else {"Content-Type": kind})
        request = urllib.request.Request(
            f"{self._base}{path}", body, headers=headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise _refusal(error.code, error.read()) from None
        except OSError as error:
            raise ConnectionLostError(f"no server answers at {self._base}: {error}") from error


def _refusal(code: int, body: bytes) -> RefusedError:
    try:
        failure = Failure.model_validate_json(body)
    except ValueError:
        text = body.decode("utf-8", "replace").strip() or "no reason given"
        return RefusedError(f"the server says no ({code}): {text[:300]}", retryable=code == 503)
    return RefusedError(
        failure.message, retryable=failure.retryable, retry_after_s=failure.retry_after_s
    )


def _path(session: str) -> str:
    return f"/streamgen/sessions/{quote(session, safe='')}"
