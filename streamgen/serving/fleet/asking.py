"""Asks a replica over HTTP, outside the event loop."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

from streamgen.errors import (
    CapacityError,
    ConfigError,
    ConnectionLostError,
    StreamGenError,
)
from streamgen.serving.gateway.bodies import Failure

ANSWER_TIMEOUT_S = 10.0


async def ask(
    address: str,
    token: str,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> bytes:
    """The body of a replica's answer.

    Raises what the replica said as ConfigError, CapacityError or StreamGenError, and
    ConnectionLostError if it did not answer.
    """
    return await asyncio.to_thread(_ask, address, token, method, path, body, timeout_s)


def _ask(
    address: str, token: str, method: str, path: str, body: bytes | None, timeout_s: float
) -> bytes:
    headers = {"Authorization": f"Bearer {token}"}
    if body is not None:
        headers["Content-Type"] = "application/json" if body[:1] == b"{" else "application/x-bytes"
    request = urllib.request.Request(f"{address}{path}", body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        raise _error(error.code, error.read()) from None
    except OSError as error:
        raise ConnectionLostError(f"replica {address} does not answer: {error}") from error


def _error(code: int, body: bytes) -> StreamGenError:
    try:
        failure = Failure.model_validate_json(body)
    except ValueError:
        return StreamGenError(f"a replica answered {code}: {body[:200].decode(errors='replace')}")
    if failure.retryable:
        return CapacityError(failure.message, retry_in_s=failure.retry_after_s)
    return ConfigError(failure.message)
