"""Which session is on which replica: sticky leases. Pure: no network, no clock.

A replica is one process with one engine. A lease keeps a session where its cache is; it is given up
only by its session, by a replica that drains, or by one that is lost.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from streamgen.serving.gateway.bodies import Load, State

UNKNOWN = Load(state=State.STARTING, sessions=0, waiting=0, places=0, capacity=0)


@dataclass(slots=True)
class Replica:
    """One engine, as the router knows it."""

    name: str
    address: str
    load: Load = UNKNOWN
    leases: set[str] = field(default_factory=set[str])

    @property
    def is_ready(self) -> bool:
        return self.load.state is State.READY

    @property
    def room(self) -> int:
        """Sessions that it will keep up with beside those that it has; may be negative."""
        return self.load.capacity - len(self.leases)

    @property
    def has_place(self) -> bool:
        return self.is_ready and len(self.leases) < self.load.places


class Fleet:
    """Owns the leases."""

    def __init__(self) -> None:
        self._replicas: dict[str, Replica] = {}
        self._where: dict[str, str] = {}

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(self._replicas.values())

    @property
    def num_places(self) -> int:
        """Sessions that all replicas that are ready have memory for."""
        return sum(each.load.places for each in self.replicas if each.is_ready)

    @property
    def num_leases(self) -> int:
        return len(self._where)

    def join(self, name: str, address: str) -> None:
        """A replica has come up; nothing is known of it yet. Twice does no harm."""
        known = self._replicas.get(name)
        if known is None or known.address != address:
            self.leave(name)
            self._replicas[name] = Replica(name, address)

    def observe(self, name: str, load: Load) -> None:
        """What a replica says of itself."""
        if name in self._replicas:
            self._replicas[name].load = load

    def suspect(self, name: str) -> None:
        """A replica did not answer: give it nothing new until it says something of itself."""
        self.observe(name, UNKNOWN)

    def leave(self, name: str) -> frozenset[str]:
        """A replica is gone; returns the sessions that have to go on elsewhere."""
        replica = self._replicas.pop(name, None)
        orphans = frozenset() if replica is None else frozenset(replica.leases)
        for lease in orphans:
            del self._where[lease]
        return orphans

    def place(self, lease: str, *, without: Collection[str] = ()) -> Replica | None:
        """Give a session to the replica with the most room; None if there is none with a place.

        A lease that a session has is given up.
        """
        self.release(lease)
        free = [each for each in self.replicas if each.has_place and each.name not in without]
        if not free:
            return None
        best = max(free, key=lambda each: (each.room, -len(each.leases)))
        best.leases.add(lease)
        self._where[lease] = best.name
        return best

    def release(self, lease: str) -> None:
        """The session is there no more; twice does no harm."""
        name = self._where.pop(lease, None)
        if name is not None:
            self._replicas[name].leases.discard(lease)

    def replica_of(self, lease: str) -> Replica | None:
        name = self._where.get(lease)
        return None if name is None else self._replicas[name]

    def to_move(self) -> tuple[str, ...]:
        """Sessions on replicas that drain, as many as there is room for elsewhere."""
        room = sum(
            max(0, each.load.places - len(each.leases)) for each in self.replicas if each.is_ready
        )
        draining = [each for each in self.replicas if each.load.state is State.DRAINING]
        return tuple(sorted(lease for each in draining for lease in each.leases))[:room]
