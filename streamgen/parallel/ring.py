"""Tensors from rank to rank: asynchronous, into buffers that are allocated once.

Both sides derive shape and order of what travels from the batch; nothing is negotiated. Every
(pair, channel) is a stream of its own: order holds inside it and nothing is said across it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise, permutations, product

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from streamgen.parallel.partition import Layout

LOOPBACK = "127.0.0.1"
SIOCGIFADDR = 0x8915  # Linux: an interface's address


class Channel(IntEnum):
    """What travels; on gloo the tag of its messages."""

    TOKENS = 1
    """Hidden states, from stage to stage."""
    PREDICTIONS = 2
    """What the model predicted, to all who keep latents."""
    PUBLISHED = 3
    """Keys and values that other groups read, too."""
    COPIED = 4
    """Keys and values that a control moves from one rank's cache row to another's."""
    MOVED = 5
    """Keys and values of blocks that go to another rank."""


@dataclass(frozen=True, slots=True)
class Route:
    """One direction between two ranks, for one kind of tensor."""

    source: int
    target: int
    channel: Channel


@dataclass(slots=True, eq=False)
class Arrival:
    """A tensor on its way here, in a buffer of the ring: give it to `Ring.release` after use."""

    tensor: Tensor
    work: dist.Work | None

    def wait(self) -> Tensor:
        """Block until it is here (on a GPU: make the current CUDA stream wait for it)."""
        if self.work is not None:
            self.work.wait()
            self.work = None
        return self.tensor


class Ring:
    """All routes of one rank. Owns send buffers and work handles; `close` lets go of them."""

    def __init__(
        self,
        rank: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        depth: int,
        groups: dict[Route, dist.ProcessGroup] | None = None,
    ) -> None:
        """`depth` sends of one shape may be under way on a route before one must wait.

        `groups` gives every route a process group of its own: NCCL runs what shares one strictly
        in order, so two directions in one group can wait for each other for ever.
        """
        self._rank = rank
        self.device = device
        self.dtype = dtype
        self._depth = depth
        self._groups = groups or {}
        self._sending: dict[
            tuple[Route, tuple[int, ...]], deque[tuple[Tensor, dist.Work | None]]
        ] = {}
        self._spare: dict[tuple[int, ...], list[Tensor]] = {}
        self._once: list[tuple[Tensor, dist.Work | None]] = []

    def send_once(self, tensor: Tensor, target: int, channel: Channel) -> None:
        """Send what does not come again: its copy is let go of as soon as it has left."""
        self._once = [one for one in self._once if one[1] and not one[1].is_completed()]
        group = self._groups.get(Route(self._rank, target, channel))
        kept = tensor.contiguous().clone()
        self._once.append((kept, dist.isend(kept, target, group=group, tag=_tag(group, channel))))

    def receive_once(self, shape: tuple[int, ...], source: int, channel: Channel) -> Tensor:
        """Wait for what `send_once` sent."""
        buffer = torch.empty(shape, device=self.device, dtype=self.dtype)
        group = self._groups.get(Route(source, self._rank, channel))
        work = dist.irecv(buffer, source, group=group, tag=_tag(group, channel))
        if work is not None:
            work.wait()
        return buffer

    def send(self, tensor: Tensor, target: int, channel: Channel) -> None:
        """Copy a tensor into the next buffer of its route, and let it go."""
        route = Route(self._rank, target, channel)
        sending = self._sending.setdefault((route, tuple(tensor.shape)), deque())
        if len(sending) < self._depth:
            buffer = torch.empty(tensor.shape, device=self.device, dtype=self.dtype)
        else:
            buffer, work = sending.popleft()
            if work is not None:
                work.wait()
        buffer.copy_(tensor)
        group = self._groups.get(route)
        sending.append((buffer, dist.isend(buffer, target, group=group, tag=_tag(group, channel))))

    def receive(self, shape: tuple[int, ...], source: int, channel: Channel) -> Arrival:
        """Begin to receive the next tensor of a route."""
        route = Route(source, self._rank, channel)
        spare = self._spare.setdefault(shape, [])
        buffer = spare.pop() if spare else torch.empty(shape, device=self.device, dtype=self.dtype)
        group = self._groups.get(route)
        return Arrival(buffer, dist.irecv(buffer, source, group=group, tag=_tag(group, channel)))

    def release(self, arrival: Arrival) -> None:
        """Give a buffer back: what was read of it must have been read on the current stream."""
        self._spare[tuple(arrival.tensor.shape)].append(arrival.tensor)

    def close(self) -> None:
        """Wait for what was sent and drop all handles: gloo aborts at exit otherwise."""
        for sending in self._sending.values():
            for _, work in sending:
                if work is not None:
                    work.wait()
        self._sending.clear()
        for _, work in self._once:
            if work is not None:
                work.wait()
        self._once.clear()


def open_store(host: str) -> TCPStore:
    """Where ranks meet, at a free port of this process; it lasts as long as the object."""
    return TCPStore(host, 0, is_master=True, wait_for_workers=False)


def join_ring(
    rank: int,
    layout: Layout,
    *,
    store: tuple[str, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Ring:
    """Meet the other ranks at the leader's store: NCCL between GPUs, gloo between CPUs."""
    host, port = store
    is_cuda = device.type == "cuda"
    interface = interface_to(host)
    if interface is not None:  # else gloo asks what this machine's name means, and NCCL guesses
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    dist.init_process_group(
        "nccl" if is_cuda else "gloo",
        store=TCPStore(host, port, is_master=False),
        rank=rank,
        world_size=layout.num_ranks,
    )
    groups: dict[Route, dist.ProcessGroup] = {}
    for route in routes(layout) if is_cuda else ():
        made = dist.new_group([route.source, route.target])  # by all ranks, in the same order
        if isinstance(made, dist.ProcessGroup):
            groups[route] = made
    depth = layout.num_stages + 1
    return Ring(rank, device=device, dtype=dtype, depth=depth, groups=groups)


def interface_to(host: str) -> str | None:
    """The network interface by which a host is reached; None where the system does not say."""
    try:
        import fcntl
    except ImportError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # sends nothing
        except OSError:
            return None
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            asked = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, asked)
            except OSError:
                continue  # it has no address
            if socket.inet_ntoa(answer[20:24]) == own:
                return name
    return None


def leave_ring(ring: Ring) -> None:
    """Together with all other ranks; gloo aborts now and then if one is still sending."""
    ring.close()
    dist.barrier()
    dist.destroy_process_group()


def routes(layout: Layout) -> list[Route]:
    """Everything that ever travels, wherever a layout's blocks move, in an order that all ranks
    agree on."""
    found: list[Route] = []
    for group in layout.groups:
        found += [Route(a, b, Channel.TOKENS) for a, b in pairwise(group.ranks)]
        found += [
            Route(group.last, rank, Channel.PREDICTIONS)
            for rank in layout.latent_ranks
            if rank != group.last
        ]
        found += [Route(a, b, Channel.MOVED) for a, b in permutations(group.ranks, 2)]
    for group, other in permutations(layout.groups, 2):
        found += [
            Route(source, target, channel)
            for source, target in product(group.ranks, other.ranks)
            for channel in (Channel.PUBLISHED, Channel.COPIED)
        ]
    return found


def _tag(group: dist.ProcessGroup | None, channel: Channel) -> int:
    return int(channel) if group is None else 0
