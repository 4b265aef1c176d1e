"""Ranks on machines that torchrun started: where they meet, and who starts each of them anew.

torchrun gives every process a rank and one store. The process of rank 0 runs the program and leads;
every other one is a keeper: it starts its rank as a process of its own when the leader says where
it listens, and once more each time that the group starts anew. So a lost rank costs torchrun
nothing, and torchrun ends everybody if the leader is gone.

The key of the group goes through the store, which anybody who reaches its port can read: the
network between the machines must be trusted, as torch.distributed asks for anyway.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import dataclass

import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from streamgen.clock import Clock
from streamgen.errors import ConfigError
from streamgen.parallel.group import END_S, RankProcess, start_process
from streamgen.parallel.member import LEADER_GONE, Leader, Member

LOOK_S = 0.1  # between two looks at the store
NEW_LEADER_S = 60.0  # for a leader to start anew, after which it counts as gone
OVER = "over"
HOME = "home"
GONE = (RuntimeError, ConnectionError, OSError)  # what a store raises whose process has ended


@dataclass(frozen=True, slots=True)
class Launch:
    """What torchrun says about this process."""

    rank: int
    num_ranks: int
    local_rank: int
    """Among the processes of this machine."""
    num_local: int
    node: int


def launched() -> Launch | None:
    """What torchrun said; None if this program was started by hand, or alone."""
    asked = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(name in os.environ for name in asked) or os.environ["WORLD_SIZE"] == "1":
        return None
    return Launch(
        rank=int(os.environ["RANK"]),
        num_ranks=int(os.environ["WORLD_SIZE"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        num_local=int(os.environ["LOCAL_WORLD_SIZE"]),
        node=int(os.environ.get("GROUP_RANK", "0")),
    )


def meet() -> Meeting:
    """Reach the store that torchrun named. ConfigError if there is none at that address."""
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, _, _ = next(rendezvous("env://"))
        host = socket.gethostbyname(os.environ["MASTER_ADDR"])
    except (dist.DistError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"the ranks cannot meet at {address} ({reason}); give torchrun a --master-addr that "
            f"all machines reach and a free --master-port"
        ) from error
    return Meeting(PrefixStore("streamgen", store), host)


class Meeting:
    """The store of a launch, in which the leader says where it is. `host` is its address."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self.host = host
        self._generation = 0

    def announce(self, leader: Leader) -> None:
        """Let the keepers start ranks for a new group, and end those of the one before."""
        words = pickle.dumps(leader).hex()
        self._store.set(f"leader/{self._generation}", words)
        self._generation += 1

    def end(self, num_keepers: int, clock: Clock) -> None:
        """Let the keepers go home, and stay for a moment until they have: torchrun's own processes
        complain of whoever is left behind. Twice does no harm."""
        deadline_s = clock.now() + END_S
        try:
            self._store.set(OVER, "yes")
            while self._store.add(HOME, 0) < num_keepers and clock.now() < deadline_s:
                clock.sleep(LOOK_S)
        except GONE:
            return

    def go_home(self) -> None:
        """A keeper has ended its rank."""
        self._store.add(HOME, 1)

    def is_over(self) -> bool:
        return self._store.check([OVER])

    def next_leader(self) -> Leader | None:
        """The next group's leader, if there is one already."""
        key = f"leader/{self._generation}"
        if not self._store.check([key]):
            return None
        self._generation += 1
        leader = pickle.loads(bytes.fromhex(self._store.get(key).decode()))
        assert isinstance(leader, Leader)
        return leader


def keep_rank(launch: Launch, run: Callable[[Member], None], clock: Clock, *, device: int) -> int:
    """Be the keeper of one rank until the leader ends the launch; returns an exit code."""
    meeting = meet()
    process: RankProcess | None = None
    lost_s: float | None = None
    try:
        while not meeting.is_over():
            leader = meeting.next_leader()
            if leader is not None:
                _end(process)
                process = start_process(leader, launch.rank, run, device=device)
                lost_s = None
            elif process is not None and not process.is_alive():
                lost_s = clock.now() if lost_s is None else lost_s
                if clock.now() - lost_s > NEW_LEADER_S:
                    return LEADER_GONE
            clock.sleep(LOOK_S)
        if process is not None:
            process.join(END_S)  # it has been told to end
        meeting.go_home()
    except GONE:
        return LEADER_GONE
    finally:
        _end(process)
    return 0


def _end(process: RankProcess | None) -> None:
    if process is not None and process.is_alive():
        process.kill()
        process.join()
