"""A stream's other side: the WebSocket from the router to the replica that draws it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from streamgen.errors import ConnectionLostError, StreamGenError
from streamgen.serving.fleet.asking import ask
from streamgen.serving.fleet.leases import Replica
from streamgen.serving.gateway.bodies import HeldSnapshot, Load, State
from streamgen.serving.gateway.messages import Start

CONNECT_TIMEOUT_S = 5.0
MAX_PICTURE_BYTES = 32_000_000
PING_EVERY_S = 2.0  # a replica that hangs is noticed within two of these
SOCKET_PATH = "/streamgen/socket"
SNAPSHOTS_PATH = "/streamgen/snapshots"


class Upstream:
    """One connection to a replica, behind the replica's offer."""

    def __init__(self, socket: ClientConnection, replica: Replica, token: str) -> None:
        self._socket = socket
        self.replica = replica
        self._token = token
        self.session = ""
        """What the replica calls the stream, once it is granted."""

    async def start(self, start: Start, snapshot: bytes | None) -> None:
        """Ask for a stream, behind a snapshot if there is one."""
        held = None
        if snapshot is not None:
            answer = await ask(self.replica.address, self._token, "POST", SNAPSHOTS_PATH, snapshot)
            held = HeldSnapshot.model_validate_json(answer).snapshot
        asked = start.model_copy(update={"snapshot": held, "wait": False})
        await self.send(asked.model_dump_json())

    async def snapshot(self, *, leave: bool) -> bytes:
        path = f"/streamgen/sessions/{self.session}/snapshot?leave={str(leave).lower()}"
        return await ask(self.replica.address, self._token, "POST", path)

    async def has_failed(self) -> bool:
        """Whether the replica's engine is gone, and not this stream alone."""
        try:
            answer = await ask(self.replica.address, self._token, "GET", "/streamgen/load")
        except StreamGenError:
            return True
        return Load.model_validate_json(answer).state is State.FAILED

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Something else of the stream; `path` is behind that of its session."""
        path = f"/streamgen/sessions/{self.session}{path}"
        return await ask(self.replica.address, self._token, method, path, body)

    async def send(self, data: str | bytes) -> None:
        """Raises ConnectionLostError."""
        try:
            await self._socket.send(data)
        except (WebSocketException, OSError) as error:
            raise _lost(self.replica, error) from error

    async def receive(self) -> bytes | dict[str, Any]:
        """A picture, or a message; raises ConnectionLostError."""
        try:
            data = await self._socket.recv()
        except (WebSocketException, OSError) as error:
            raise _lost(self.replica, error) from error
        return data if isinstance(data, bytes) else json.loads(data)


@asynccontextmanager
async def connected(replica: Replica, token: str) -> AsyncIterator[Upstream]:
    """A connection to a replica inside the block; raises ConnectionLostError if there is none."""
    address = f"ws{replica.address.removeprefix('http')}{SOCKET_PATH}"
    try:
        socket = await connect(
            address,
            additional_headers={"Authorization": f"Bearer {token}"},
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=1.0,
            ping_interval=PING_EVERY_S,
            ping_timeout=PING_EVERY_S,
            max_size=MAX_PICTURE_BYTES,
            compression=None,
        )
    except (WebSocketException, OSError, TimeoutError) as error:
        raise _lost(replica, error) from error
    try:
        upstream = Upstream(socket, replica, token)
        await upstream.receive()  # its offer
        yield upstream
    finally:
        await socket.close()


def _lost(replica: Replica, error: Exception) -> ConnectionLostError:
    return ConnectionLostError(f"replica {replica.name} is lost: {error or type(error).__name__}")
