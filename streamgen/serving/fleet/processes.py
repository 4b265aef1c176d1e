"""Replicas as processes of this machine: started, started again when they end, ended with us."""

from __future__ import annotations

import itertools
import logging
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streamgen.clock import Clock
from streamgen.serving.gateway.bodies import Load

logger = logging.getLogger(__name__)

ADDRESS_MARK = "streamgen: replica at "  # the first line of a replica says where it listens
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # before a replica that ended early is started again
EARLY_S = 30.0
END_TIMEOUT_S = 10.0


class ReplicaProcess:
    """One process; its standard input stays open as long as we live, and ends it when we do."""

    def __init__(self, name: str, command: Sequence[str], token: str, began_s: float) -> None:
        self.name = name
        self.began_s = began_s
        self.address: str | None = None
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(f"{token}\n")
        self._process.stdin.flush()
        threading.Thread(target=self._read, name=f"replica-{name}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        """Let it drain and end."""
        if self.exit_code is None:
            self._process.terminate()

    def end(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """Wait until it has ended, and kill it if it does not."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("replica %s does not end; it is killed", self.name)
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(ADDRESS_MARK):
                    self.address = line.removeprefix(ADDRESS_MARK).strip()


@dataclass(slots=True)
class Place:
    """Where one of the processes runs, one after the other."""

    running: ReplicaProcess | None = None
    wait_s: float = FIRST_WAIT_S
    not_before_s: float = field(default=0.0)


class ProcessReplicas:
    """Keeps so many processes up; the `Replicas` of one machine without Ray."""

    def __init__(self, command: Sequence[str], count: int, *, token: str, clock: Clock) -> None:
        """`command` starts a replica that reads `token` and prints ADDRESS_MARK and its address."""
        self._command = tuple(command)
        self._token = token
        self._clock = clock
        self._places = [Place() for _ in range(count)]
        self._names = (f"r{number}" for number in itertools.count())

    @property
    def processes(self) -> tuple[ReplicaProcess, ...]:
        return tuple(place.running for place in self._places if place.running is not None)

    async def addresses(self) -> Mapping[str, str]:
        for place in self._places:
            self._keep_up(place)
        return {each.name: each.address for each in self.processes if each.address is not None}

    async def report(self, loads: Sequence[Load], waiting: int) -> None:
        """Nothing to decide: there are as many as were asked for."""

    def close(self) -> None:
        """End all."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.end()

    def _keep_up(self, place: Place) -> None:
        now_s = self._clock.now()
        process = place.running
        if process is not None and process.exit_code is not None:
            is_early = now_s - process.began_s < EARLY_S
            wait_s = place.wait_s if is_early else FIRST_WAIT_S
            logger.warning(
                "replica %s ended with code %s; another one starts in %.0f s",
                process.name, process.exit_code, wait_s,
            )  # fmt: skip
            process.end()
            place.running, place.not_before_s = None, now_s + wait_s
            place.wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        if place.running is None and now_s >= place.not_before_s:
            place.running = ReplicaProcess(next(self._names), self._command, self._token, now_s)
