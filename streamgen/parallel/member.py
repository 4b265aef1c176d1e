"""The side of a rank: a connection to the leader, read by a thread, with a heartbeat in another.

When the leader is gone the process ends at once, whatever its main thread waits for.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from platform import python_version

import torch

from streamgen.clock import Clock, MonotonicClock
from streamgen.errors import StreamGenError
from streamgen.parallel.messages import Beat, Failed, Hello, Stop, read, write

logger = logging.getLogger(__name__)

BEAT_S = 0.25  # between two signs of life
LEADER_GONE = 1  # exit code


@dataclass(frozen=True, slots=True)
class Leader:
    """Where the leader listens, and the key of its group."""

    host: str
    port: int
    key: bytes


class Member:
    """One rank's connection; `receive` and `send` are for its main thread."""

    def __init__(self, connection: Connection, rank: int, clock: Clock, *, device: int) -> None:
        """`device` is the number of this rank's GPU on its machine, if it has one."""
        self.rank = rank
        self.device = device
        self._connection = connection
        self._clock = clock
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._busy_since_s: float | None = None
        self._is_over = threading.Event()

    def receive(self) -> object | None:
        """The leader's next message; None if it said that this is the end."""
        self._busy_since_s = None
        message = self._inbox.get()
        self._busy_since_s = self._clock.now()
        return None if isinstance(message, Stop) else message

    def send(self, message: object) -> None:
        with self._sending:
            write(self._connection, message)

    def _start(self) -> None:
        for target in (self._read, self._beat):
            threading.Thread(target=target, daemon=True, name=target.__name__).start()

    def _read(self) -> None:
        try:
            while True:
                message = read(self._connection)
                if isinstance(message, Stop):
                    self._is_over.set()
                self._inbox.put(message)
        except (EOFError, OSError):
            if not self._is_over.is_set():
                os._exit(LEADER_GONE)  # the main thread may wait for a rank that is gone, too

    def _beat(self) -> None:
        while not self._is_over.wait(BEAT_S):
            since_s = self._busy_since_s
            try:
                self.send(Beat(0.0 if since_s is None else self._clock.now() - since_s))
            except OSError:
                return


def run_member(leader: Leader, rank: int, run: Callable[[Member], None], device: int) -> int:
    """Join a leader's group and do what it says until it says stop; returns an exit code."""
    connection = Client((leader.host, leader.port), authkey=leader.key)
    member = Member(connection, rank, MonotonicClock(), device=device)
    member.send(Hello(rank, os.getpid(), socket.gethostname(), versions()))
    member._start()
    try:
        run(member)
    except StreamGenError as error:
        member.send(Failed(error, str(error)))
        return _wait_for_the_end(member, error.exit_code)
    except BaseException as error:
        logger.debug("rank %d failed", rank, exc_info=True)
        member.send(Failed(None, f"{type(error).__name__}: {error}"))
        return _wait_for_the_end(member, StreamGenError.exit_code)
    return 0


def member_process(leader: Leader, rank: int, run: Callable[[Member], None], device: int) -> None:
    """The whole life of a rank's process; ends it without Python's own teardown.

    After a neighbour's death gloo's threads cannot be joined any more; what matters has been
    closed by `run`.
    """
    code = LEADER_GONE
    try:
        code = run_member(leader, rank, run, device)
    except (OSError, EOFError):
        pass
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def versions() -> tuple[tuple[str, str], ...]:
    """What all ranks of a group must have alike."""
    return (
        ("Python", python_version().rpartition(".")[0]),
        ("torch", str(torch.__version__)),
        ("StreamGen", _own_version()),
    )


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("streamgen")
    except PackageNotFoundError:
        return "of a source tree"


def _wait_for_the_end(member: Member, code: int) -> int:
    """Stay until the leader has read why, and lets go or is gone."""
    while member.receive() is not None:
        pass
    return code
