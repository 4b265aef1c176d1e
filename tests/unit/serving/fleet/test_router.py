"""Several engines behind one address: who drains or is lost has its streams go on elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import numpy as np
import pytest

from streamgen.client import Client, ClientFrame
from streamgen.clock import MonotonicClock
from streamgen.errors import RefusedError
from streamgen.serving.fleet.router import Router
from streamgen.serving.gateway.bodies import SessionChange, State
from streamgen.types import Pixels
from tests.live_server import KnownReplicas, LiveServer, live_router, live_server

TEXT, SAME = "tiny-cpu", "identity-cpu"
SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1", "engine.sessions=6")
WORDS = "a red ball bouncing over a green field"
TOKEN = "between us"
WAIT_S = 60.0


@contextmanager
def fleet(names: str, preset: str = TEXT) -> Generator[tuple[Client, Router, KnownReplicas]]:
    """A client of a router before replicas of these names."""
    with ExitStack() as stack:
        servers: dict[str, LiveServer] = {
            name: stack.enter_context(live_server({preset: SMALL}, num_places=6, token=TOKEN))
            for name in names
        }
        replicas = KnownReplicas(servers)
        router, url = stack.enter_context(live_router(replicas, token=TOKEN))
        client = Client(url)
        wait_until(lambda: router.fleet.num_places == 6 * len(names) and client.is_ready())
        yield client, router, replicas


def wait_until(is_so: object) -> None:
    clock = MonotonicClock()
    until_s = clock.now() + WAIT_S
    while not is_so():  # type: ignore[operator]
        assert clock.now() < until_s, "it never came"
        clock.sleep(0.02)


class Viewer:
    """Watches one stream in a thread of its own."""

    def __init__(self, client: Client, seed: int) -> None:
        self.frames: list[ClientFrame] = []
        self.session = client.open(TEXT, prompt=WORDS, seed=seed)
        self._is_over = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def see(self, count: int) -> None:
        """Wait for more frames."""
        wanted = len(self.frames) + count
        wait_until(lambda: len(self.frames) >= wanted or not self._thread.is_alive())
        assert len(self.frames) >= wanted, "the stream has ended"

    def end(self) -> list[int]:
        """Stop watching; returns the pictures' places in the stream."""
        self._is_over = True
        self._thread.join(WAIT_S)
        self.session.close()
        return [round(16 * frame.pts_s) for frame in self.frames]

    def _watch(self) -> None:
        for frame in self.session:
            self.frames.append(frame)
            if self._is_over:
                return


def at(router: Router, name: str) -> int:
    return sum(len(each.leases) for each in router.fleet.replicas if each.name == name)


def test_a_replica_that_drains_loses_no_stream_and_no_picture():
    """All go on at the other one; each sees every place of its stream in order, none twice."""
    with fleet("ab") as (client, router, replicas):
        viewers = [Viewer(client, seed) for seed in range(4)]
        for viewer in viewers:
            viewer.see(6)
        assert len(client.sessions()) == 4
        here, there = "ab" if at(router, "a") > 1 else "ba"
        num_here = at(router, here)
        replicas.servers[here].drain()
        wait_until(lambda: at(router, there) == 4 and at(router, here) == 0)
        for viewer in viewers:
            viewer.see(12)
        moves = [viewer.session.num_moves for viewer in viewers]
        places = [viewer.end() for viewer in viewers]
        assert sorted(moves) == [0] * (4 - num_here) + [1] * num_here
        for seen in places:
            assert seen == sorted(set(seen))
            assert len(seen) >= 0.8 * (seen[-1] - seen[0] + 1)  # who is slow misses some
        assert f'streamgen_moves_total{{why="drained"}} {num_here}' in _metrics(client)


def test_streams_of_a_replica_that_dies_go_on_and_the_others_notice_nothing():
    with fleet("ab") as (client, router, replicas):
        viewers = [Viewer(client, seed) for seed in range(3)]
        for viewer in viewers:
            viewer.see(24)  # so that there is a snapshot
        dead = "a" if at(router, "a") > 1 else "b"
        num_dead = at(router, dead)
        server = replicas.servers.pop(dead)
        server.end()
        for viewer in viewers:
            viewer.see(16)
        moves = sorted(viewer.session.num_moves for viewer in viewers)
        assert moves == [0] * (3 - num_dead) + [1] * num_dead
        for viewer in viewers:
            stayed = viewer.session.num_moves == 0
            seen = viewer.end()
            back = [b - a for a, b in pairwise(seen) if b <= a]
            assert not (stayed and back)
            assert all(step > -3 * 16 for step in back)  # no more than since the last snapshot
        assert client.load().places == 6
        assert replicas.reports


def test_one_replica_does_what_one_server_does():
    """Refusals, changes, ends, snapshots and bad wishes come through the router."""
    with fleet("a") as (client, _, _):
        with pytest.raises(RefusedError, match="no preset 'dall-e'"):
            client.open("dall-e", prompt=WORDS)
        with client.open(TEXT, prompt=WORDS) as session:
            next(session)
            changed = client.change(session.name, SessionChange(prompt="a star", is_paused=True))
            assert (changed.session, changed.prompt) == (session.name, "a star")
            assert client.sessions()[0].is_paused
            session.change(strength=0.5)
            with pytest.raises(RefusedError, match="strength needs"):
                for _ in session:
                    pass
            snapshot = client.snapshot(session.name, leave=True)
            last = [frame.pts_s for frame in session][-1:]
        with client.open(TEXT, prompt="a star", snapshot=snapshot, patience_s=10) as session:
            first = next(session).pts_s
            assert first > 0
            assert not last or first > last[0]
            client.end(session.name)
            list(session)
        with pytest.raises(RefusedError, match="no session"):
            client.end("nobody")


def test_pictures_that_were_on_the_way_do_not_block_who_sends_them():
    """A visitor whose replica drains keeps sending; what comes back is what was sent."""
    shades = [20, 70, 120, 170, 220]
    with fleet("ab", SAME) as (client, router, replicas):
        session = client.open(SAME, prompt="any")
        seen: list[ClientFrame] = []
        here, there = "ab" if at(router, "a") else "ba"

        def pictures() -> Iterator[Pixels]:
            for index in range(20_000):
                yield np.full((64, 64, 3), shades[index % 5], np.uint8)
                if index == 20:
                    replicas.servers[here].drain()
                    wait_until(lambda: at(router, there) == 1)
                if session.num_moves and seen[-1].pts_s > 40:
                    return

        with session:
            for frame in session.restyle(pictures(), fps=1):
                seen.append(frame)
            assert session.num_moves == 1
        assert seen[-1].pts_s > 40
        for frame in seen:
            assert abs(float(frame.pixels.mean()) - shades[round(frame.pts_s) % 5]) < 3


def test_before_a_replica_is_ready_the_router_is_not():
    with live_router(KnownReplicas({}), token=TOKEN) as (_, url):
        client = Client(url)
        assert not client.is_ready()
        assert client.load().state is State.STARTING
        with pytest.raises(RefusedError, match="no replica is ready") as refused:
            client.open(TEXT, prompt=WORDS)
        assert refused.value.retryable


def _metrics(client: Client) -> str:
    return client._ask("GET", "/metrics").decode()
