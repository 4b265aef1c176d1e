"""What ranks and their leader say to each other about themselves. Host values, pickled.

Both ends are one program under one user, and a connection is only accepted with the key of its
group, so pickles are as trusted as the program itself.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from multiprocessing.connection import Connection

from streamgen.errors import StreamGenError


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of a rank: who it is and what it runs on."""

    rank: int
    pid: int
    host: str
    versions: tuple[tuple[str, str], ...]
    """What must be alike everywhere: package and version."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, sent by a thread of its own; `busy_s` with the current work, 0 if idle."""

    busy_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The rank cannot go on: an error that a user can mend, or the last line of a traceback."""

    error: StreamGenError | None
    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The last word of the leader."""


def write(connection: Connection, message: object) -> None:
    """Plain pickle: multiprocessing's own would put tensors into shared memory of this machine."""
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def read(connection: Connection) -> object:
    """Raises EOFError or OSError if the other side is gone."""
    return pickle.loads(connection.recv_bytes())
