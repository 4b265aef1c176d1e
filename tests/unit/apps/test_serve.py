"""`streamgen serve`: what it refuses, how it comes up and how it ends."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamgen.client import Client, Session
from streamgen.clock import MonotonicClock
from streamgen.errors import RefusedError
from streamgen_apps.cli import main

SMALL = ("--set", "picture.height=64", "--set", "picture.width=64", "--set", "model.num_threads=1")
TEXT = "tiny-cpu"
WORDS = "a red ball bouncing over a green field"
MARK = "STREAMGEN_TEST_PROCESS"  # in the environment of what a test starts
WAIT_S = 120.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--replicas", "0"), "2 streamgen: --replicas 0 draw nothing"),
        (("--max-sessions", "0"), "2 streamgen: --max-sessions 0 lets nobody in"),
        (("--drain-seconds", "-1"), "2 streamgen: --drain-seconds -1.0 is in the past"),
        (("--max-replicas", "3"), "2 streamgen: --max-replicas has no effect without --ray"),
        (("--ray-address", "auto"), "2 streamgen: --ray-address has no effect without --ray"),
        (("--split", "steps"), "2 streamgen: --split is for the work of several GPUs; give --gpus"),
        (("--ray-gpus",), "2 streamgen: --ray-gpus has no effect without --ray"),
        (("--token", " "), "2 streamgen: the token is empty"),
        (("--token-file", "no-such-file"), "2 streamgen: --token-file no-such-file"),
        (("--token", "a", "--token-file", "b"), "2 streamgen: --token and --token-file"),
        (("--preset", "tiny-gpu"), "2 streamgen: no preset 'tiny-gpu'"),
        (("--host", "999.1.1.1"), "3 streamgen: cannot listen on 999.1.1.1"),
        (("--max-sessions", "99", *SMALL), "2 streamgen: --max-sessions 99 is more than the 4"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
):
    code = main(["serve", "--port", "0", *arguments])
    *_, line = capsys.readouterr().err.splitlines()
    assert f"{code} {line}".startswith(words)


@contextmanager
def served(*arguments: str) -> Generator[tuple[subprocess.Popen[str], Client]]:
    """The command in a process of its own, and a client of it when it is ready."""
    command = [sys.executable, "-m", "streamgen_apps.cli", "serve", "--port", "0", *SMALL]
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: str(os.getpid())},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("streamgen: serving http://127.0.0.1:")
        client = Client(line.split()[2])
        wait_until(client.is_ready)
        yield process, client
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_until(is_so: object) -> None:
    clock = MonotonicClock()
    until_s = clock.now() + WAIT_S
    while not is_so():  # type: ignore[operator]
        assert clock.now() < until_s, "it never came"
        clock.sleep(0.05)


@pytest.mark.slow
def test_sigterm_lets_a_stream_finish_and_nothing_new_begin():
    with served("--preset", TEXT) as (process, client), client.open(TEXT, prompt=WORDS) as session:
        next(session)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not client.is_ready())
        with pytest.raises(RefusedError, match="begins no new stream") as refused:
            client.open(TEXT, prompt=WORDS)
        assert refused.value.retryable
        assert len(list(itertools.islice(session, 16))) == 16
        session.close()
        assert process.wait(WAIT_S) == 0


@pytest.mark.slow
def test_who_stays_too_long_is_cut_off():
    arguments = ("--preset", TEXT, "--drain-seconds", "0.5")
    with served(*arguments) as (process, client), client.open(TEXT, prompt=WORDS) as session:
        next(session)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(RefusedError, match="the server closed"):
            list(session)
        assert process.wait(WAIT_S) == 0


@pytest.mark.slow
def test_a_replica_that_is_killed_loses_no_stream_and_comes_up_again():
    """Two processes, six streams, one killed: its streams go on, the rest do not notice."""
    check_killed_replica("--replicas", "2")


@pytest.mark.slow
def test_a_replica_that_is_killed_loses_no_stream_under_ray():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'streamgen[ray]'")
    check_killed_replica("--ray", "--replicas", "2")


def check_killed_replica(*arguments: str) -> None:
    sessions = ("--set", "engine.sessions=6")
    with served("--preset", TEXT, *sessions, *arguments) as (process, client):
        wait_until(lambda: client.load().places == 12)
        counts = [0] * 6
        streams = [client.open(TEXT, prompt=WORDS, seed=seed) for seed in range(6)]

        def watch(index: int, stream: Session) -> None:
            for _ in stream:
                counts[index] += 1

        watchers = [
            threading.Thread(target=watch, args=each, daemon=True) for each in enumerate(streams)
        ]
        for watcher in watchers:
            watcher.start()
        wait_until(lambda: min(counts) > 32)  # longer than from one snapshot to the next
        os.kill(next(engines()), signal.SIGKILL)
        wait_until(lambda: client.load().places == 6)
        seen = list(counts)
        wait_until(lambda: all(now > then + 16 for now, then in zip(counts, seen, strict=True)))
        moves = [stream.num_moves for stream in streams]
        assert set(moves) <= {0, 1}
        assert sum(moves) >= 1
        wait_until(lambda: client.load().places == 12)  # another one has come up
        for stream, watcher in zip(streams, watchers, strict=True):
            client.end(stream.name)
            watcher.join(WAIT_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def engines() -> Iterator[int]:
    """Processes with an engine that this test has started, directly or by way of Ray."""
    mark = f"{MARK}={os.getpid()}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--replica" in command and mark in environment:
            yield int(path.name)
