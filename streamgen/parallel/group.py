"""The side of the leader: starts ranks or lets them in, talks to each, and notices who is lost.

A rank is lost when its process ends, its connection breaks, no sign of life comes, or one piece of
work takes far longer than any before it.
"""

from __future__ import annotations

import logging
import multiprocessing
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge, wait
from multiprocessing.process import BaseProcess
from typing import cast

from streamgen.clock import Clock
from streamgen.errors import ConfigError, RankLostError
from streamgen.parallel.member import Leader, Member, member_process, versions
from streamgen.parallel.messages import Beat, Failed, Hello, Stop, read, write

logger = logging.getLogger(__name__)

SILENCE_S = 2.0  # without a sign of life, after which a rank counts as lost
STUCK_FACTOR = 20.0  # so many times the slowest work so far is stuck
FIRST_WORK_S = 600.0  # allowed while nothing has been measured: loading, compiling
JOIN_S = 120.0  # for all ranks to say hello: torch is imported meanwhile
POLL_S = 0.1  # between two looks at what cannot be waited for together
END_S = 3.0  # for a rank to end by itself after it was told to


RankProcess = BaseProcess


def start_process(
    leader: Leader, rank: int, run: Callable[[Member], None], *, device: int
) -> RankProcess:
    """Begin a rank on this machine, forked from a server that has torch imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "streamgen.parallel.member", run.__module__])
    process = context.Process(
        target=member_process,
        args=(leader, rank, run, device),
        name=f"streamgen-rank-{rank}",
        daemon=True,
    )
    try:
        process.start()
    except EOFError as error:  # of the server that forks: it has been killed
        raise RankLostError(f"rank {rank} could not be started; start again") from error
    return process


class RankGroup:
    """Connections to all ranks, and the processes of those that were started here."""

    def __init__(self, num_ranks: int, clock: Clock, *, host: str = "127.0.0.1") -> None:
        """`host` is the address that ranks reach this process at; the port is a free one."""
        self._num_ranks = num_ranks
        self._clock = clock
        try:
            self._door = socket.create_server((host, 0), backlog=num_ranks)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} ({error.strerror or error}); give an address of this "
                f"machine that all ranks reach"
            ) from error
        self._door.settimeout(POLL_S)
        self.leader = Leader(host, self._door.getsockname()[1], secrets.token_bytes(32))
        self._connections: dict[int, Connection] = {}
        self._processes: dict[int, RankProcess] = {}
        self._seen_s: dict[int, float] = {}
        self._inbox: deque[tuple[int, object]] = deque()
        self._silence_s = JOIN_S
        self.slowest_s: float | None = None
        """Of all work so far, as the owner measured it; None before there is any."""

    def start(
        self, ranks: Iterable[int], run: Callable[[Member], None], *, first_device: int = 0
    ) -> None:
        """Begin processes of this machine, on devices that begin with `first_device`."""
        for rank in ranks:
            device = first_device + rank
            self._processes[rank] = start_process(self.leader, rank, run, device=device)

    def gather(self) -> dict[int, Hello]:
        """Wait until all ranks have said hello.

        Raises RankLostError if one does not come, ConfigError if one runs something else.
        """
        deadline_s = self._clock.now() + JOIN_S
        hellos: dict[int, Hello] = {}
        while len(hellos) < self._num_ranks:
            self._check_alive()
            if self._clock.now() > deadline_s:
                missing = sorted(set(range(self._num_ranks)) - set(hellos))
                raise RankLostError(
                    f"rank {missing[0]} did not come within {JOIN_S:g} s; look at what it wrote"
                )
            connection = self._accept()
            if connection is None:
                continue
            hello = read(connection)
            assert isinstance(hello, Hello)
            hellos[hello.rank] = hello
            self._connections[hello.rank] = connection
            self._seen_s[hello.rank] = self._clock.now()
        for rank, hello in sorted(hellos.items()):
            _check_versions(rank, hello)
        return hellos

    def watch(self) -> None:
        """From now on a rank that is silent for SILENCE_S is lost; importing and loading are over,
        during which Python may keep its threads waiting for longer."""
        self._read_all(timeout_s=0.0)
        self._silence_s = SILENCE_S

    def send(self, rank: int, message: object) -> None:
        """Raises RankLostError if the rank is gone."""
        try:
            write(self._connections[rank], message)
        except OSError as error:
            raise self._lost(rank, "its connection broke") from error

    def broadcast(self, message: object) -> None:
        for rank in self._connections:
            self.send(rank, message)

    def receive(self) -> tuple[int, object]:
        """The next message of any rank, waiting for it; signs of life are not messages.

        Raises RankLostError if a rank is lost meanwhile, and what a rank raised that a user can
        mend.
        """
        while not self._inbox:
            self._read_all(timeout_s=POLL_S)
            if not self._inbox:
                self._check_alive()
        return self._inbox.popleft()

    def look(self) -> None:
        """Take in what has arrived, without waiting; raises as `receive` does."""
        self._read_all(timeout_s=0.0)
        self._check_alive()

    def pids(self) -> dict[int, int]:
        """Processes that were started here."""
        return {rank: cast("int", one.pid) for rank, one in self._processes.items()}

    def close(self) -> None:
        """End all ranks: ask, wait a little, kill; nothing is left over. Twice does no harm."""
        for connection in self._connections.values():
            try:
                write(connection, Stop())
            except OSError:
                continue
        deadline_s = self._clock.now() + END_S
        for process in self._processes.values():
            process.join(max(0.0, deadline_s - self._clock.now()))
        self.kill()

    def kill(self) -> None:
        """End all ranks at once."""
        for process in self._processes.values():
            if process.is_alive():
                process.kill()
        for process in self._processes.values():
            process.join()
            process.close()
        for connection in self._connections.values():
            connection.close()
        self._processes.clear()
        self._connections.clear()
        self._door.close()

    def _accept(self) -> Connection | None:
        """Let in whoever knows the key; None if nobody came, or somebody who does not."""
        try:
            arrived, _ = self._door.accept()
        except TimeoutError:
            return None
        arrived.setblocking(True)
        arrived.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
        connection = Connection(arrived.detach())
        try:
            deliver_challenge(connection, self.leader.key)
            answer_challenge(connection, self.leader.key)
        except (AuthenticationError, OSError, EOFError):
            logger.warning("somebody without the key knocked at port %d", self.leader.port)
            connection.close()
            return None
        opened = socket.socket(fileno=connection.fileno())
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.detach()
        return connection

    def _read_all(self, *, timeout_s: float) -> None:
        """Move what has arrived to the inbox, in order for each rank."""
        ranks = {connection: rank for rank, connection in self._connections.items()}
        ready = wait(list(ranks), timeout_s)
        while ready:
            for connection in ready:
                assert isinstance(connection, Connection)
                rank = ranks[connection]
                try:
                    self._take(rank, read(connection))
                except (EOFError, OSError) as error:
                    raise self._lost(rank, "its connection broke") from error
            ready = wait(list(ranks), 0)

    def _take(self, rank: int, message: object) -> None:
        self._seen_s[rank] = self._clock.now()
        match message:
            case Beat(busy_s):
                slowest_s = self.slowest_s
                limit_s = FIRST_WORK_S if slowest_s is None else STUCK_FACTOR * slowest_s
                if busy_s > max(SILENCE_S, limit_s):
                    raise self._lost(rank, f"it has been at one piece of work for {busy_s:.1f} s")
            case Failed(None, text):
                raise self._lost(rank, text)
            case Failed(error, text):
                assert error is not None
                raise type(error)(f"rank {rank}: {text}")
            case _:
                self._inbox.append((rank, message))

    def _check_alive(self) -> None:
        for rank, process in self._processes.items():
            if not process.is_alive():
                raise self._lost(rank, f"its process ended ({_ended(process.exitcode)})")
        now_s = self._clock.now()
        for rank, seen_s in self._seen_s.items():
            if now_s - seen_s > self._silence_s:
                raise self._lost(rank, f"it has given no sign of life for {now_s - seen_s:.1f} s")

    def _lost(self, rank: int, why: str) -> RankLostError:
        return RankLostError(f"rank {rank} is lost: {why}; start again, or with fewer ranks")


def _check_versions(rank: int, hello: Hello) -> None:
    for (name, theirs), (_, ours) in zip(hello.versions, versions(), strict=True):
        if theirs != ours:
            raise ConfigError(
                f"rank {rank} on {hello.host} runs {name} {theirs}, rank 0 runs {ours}; install "
                f"the same version everywhere"
            )


def _ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"
