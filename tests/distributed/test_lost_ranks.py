"""Ranks that die or freeze are noticed, and streams go on from what was seen of them."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from streamgen.clock import MonotonicClock
from streamgen.engine.recipe import CacheMode
from streamgen.errors import RankLostError
from streamgen.parallel.group import SILENCE_S
from streamgen.scheduling.policy import StreamBatch
from tests.distributed.small_ranks import PipelinedEngine, pipelined
from tests.small_engine import NOISE, Stream, VideoLikeStarter, small_recipe

CHUNKS = 14
PIDFD_GETFD = 438  # Linux system call


def play_on(engine: PipelinedEngine, *streams: Stream) -> int:
    """Tick until these sessions have ended, as a Host does; returns how often ranks were lost."""
    losses = 0
    while not all(stream.session.has_ended for stream in streams):
        losses += _tick(engine)
    return losses


@pytest.mark.parametrize(
    ("split", "num_ranks", "mode"),
    [
        ("layers", 2, CacheMode.CLEAN),
        ("2+1", 3, CacheMode.PER_STEP),
        ("steps", 2, CacheMode.CASCADED),
        ("layers", 2, CacheMode.RECOMPUTE),
        ("layers", 2, CacheMode.JOINT),
    ],
)
def test_streams_go_on_when_any_rank_is_killed(split: str, num_ranks: int, mode: CacheMode) -> None:
    """Each rank in turn, two sessions, a new prompt on its way each time: every chunk comes out
    once, in order, whichever rank died; nothing is left of the dead."""
    recipe = small_recipe(steps=2, mode=mode)
    with pipelined(
        split, num_ranks, num_passes=recipe.num_passes, positions=recipe.positions
    ) as executor:
        engine = PipelinedEngine(StreamBatch(), executor)
        words = engine.open(recipe, seed=1, max_chunks=CHUNKS)
        video = engine.open(
            recipe, seed=2, starter=VideoLikeStarter(recipe, seed=2, max_chunks=CHUNKS)
        )
        losses = 0
        for rank in range(num_ranks):
            for _ in range(3):
                engine.engine.tick()
            engine.engine.set_prompt(words.session, engine.prompt(2 + rank))
            before = executor.group.pids()
            os.kill(before[rank], signal.SIGKILL)
            seen = len(words.latents)
            while len(words.latents) < seen + 2 and not words.session.has_ended:
                losses += _tick(engine)
            assert before.keys() == executor.group.pids().keys()
            assert not any(_is_alive(pid) for pid in before.values())
        losses += play_on(engine, words, video)
        pids = executor.group.pids()
    assert losses == executor.num_restarts == num_ranks
    assert words.decoder.pts_s == sorted(set(words.decoder.pts_s))
    assert len(words.latents) == len(video.latents) == CHUNKS
    assert video.decoder.pts_s == [float(chunk) for chunk in range(CHUNKS)]
    assert all(torch.isfinite(chunk).all() for chunk in (*words.latents, *video.latents))
    assert not any(_is_alive(pid) for pid in pids.values())


@pytest.mark.parametrize("between", ["leader and rank", "ranks"])
def test_a_torn_connection_is_noticed_and_streams_go_on(between: str) -> None:
    """The network is gone, and no process is: the group starts anew all the same."""
    recipe = small_recipe(steps=2, mode=CacheMode.PER_STEP)
    clock = MonotonicClock()
    with pipelined("layers", 2, num_passes=recipe.num_passes) as executor:
        engine = PipelinedEngine(StreamBatch(), executor)
        stream = engine.open(recipe, seed=1, max_chunks=CHUNKS)
        engine.tick(4)
        pids = executor.group.pids()
        before = clock.now()
        _tear(pids[1], is_control=between == "leader and rank", port=executor.group.leader.port)
        with pytest.raises(RankLostError, match="is lost"):
            engine.tick(400)
        assert clock.now() - before < SILENCE_S + 2  # and what a busy machine adds
        executor.restart()
        engine.engine.recover(NOISE)
        engine.finish(stream)
        assert not any(_is_alive(pid) for pid in pids.values())
    assert len(stream.latents) == CHUNKS


def test_ranks_end_by_themselves_when_their_leader_is_killed() -> None:
    """Nobody is left to end them, and still no process and no port stays."""
    command = [sys.executable, "-m", "streamgen_apps.cli", "run", "a red ball", "--gpus", "2"]
    leader = subprocess.Popen(
        [*command, "-o", "-"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    clock = MonotonicClock()
    try:
        assert leader.stdout is not None
        assert leader.stdout.read(1000), "no film came"
        children = [pid for pid in _session_of(leader.pid) if pid != leader.pid]
        assert len(children) >= 2
        leader.kill()
        leader.wait()
        _until(lambda: not _session_of(leader.pid), clock, limit_s=10)
    finally:
        for pid in _session_of(leader.pid):
            os.kill(pid, signal.SIGKILL)
        if leader.stdout is not None:
            leader.stdout.close()


def test_a_frozen_rank_is_noticed_and_replaced() -> None:
    """No sign of life for two seconds is as good as death."""
    recipe = small_recipe(steps=2, mode=CacheMode.CLEAN)
    clock = MonotonicClock()
    with pipelined("steps", 2, num_passes=recipe.num_passes) as executor:
        engine = PipelinedEngine(StreamBatch(), executor)
        stream = engine.open(recipe, seed=1, max_chunks=5)
        engine.tick(4)
        frozen = executor.group.pids()[1]
        os.kill(frozen, signal.SIGSTOP)
        began_s = clock.now()
        with pytest.raises(RankLostError, match="rank 1 is lost: it has given no sign of life"):
            engine.tick(50)
        assert clock.now() - began_s < SILENCE_S + 2  # and what a busy machine adds
        executor.restart()
        engine.engine.recover(NOISE)
        assert not _is_alive(frozen)
        engine.finish(stream)
    assert len(stream.latents) == 5


def _tick(engine: PipelinedEngine) -> int:
    try:
        engine.engine.tick()
    except RankLostError:
        engine.pipeline.restart()
        engine.engine.recover(NOISE)
        return 1
    return 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _until(is_so: Callable[[], bool], clock: MonotonicClock, *, limit_s: float) -> None:
    deadline_s = clock.now() + limit_s
    while not is_so():
        assert clock.now() < deadline_s, f"not so after {limit_s} s"
        clock.sleep(0.05)


def _session_of(leader: int) -> list[int]:
    """Processes of a session that live, from the kernel's table."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def _tear(pid: int, *, is_control: bool, port: int) -> None:
    """Shut a process's TCP connections down, from outside: the leader's, or all others."""
    libc = ctypes.CDLL(None, use_errno=True)
    process, num_torn = os.pidfd_open(pid), 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            is_socket = os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue  # closed since we looked
        if not is_socket:
            continue
        copied = libc.syscall(PIDFD_GETFD, process, int(entry.name), 0)
        if copied < 0 and ctypes.get_errno() == errno.EBADF:
            continue
        if copied < 0:
            pytest.skip("this machine lets no process look into another one's")
        with socket.socket(fileno=copied) as one:
            try:
                is_leaders = one.getpeername()[1] == port
            except (OSError, IndexError):
                continue  # it listens, or is no TCP
            if one.family == socket.AF_INET and is_leaders == is_control:
                one.shutdown(socket.SHUT_RDWR)
                num_torn += 1
    os.close(process)
    assert num_torn > 0
