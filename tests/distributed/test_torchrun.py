"""Ranks that torchrun starts, on one machine and on two, which are network namespaces here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

NUM_FRAMES = 12
PATIENCE_S = 240
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
PROGRAM = ("-m", "streamgen_apps.cli", "run", "a red ball", "--frames", str(NUM_FRAMES))
ADDRESSES = ("10.231.77.1", "10.231.77.2")


def start(*command: str, folder: Path) -> subprocess.Popen[str]:
    """A command in a session of its own, so that all of it can be ended."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """What each has written, once all have ended; whatever happens, none is left."""
    try:
        return [process.communicate(timeout=PATIENCE_S)[0] for process in processes]
    finally:
        for process in processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def count_frames(path: Path) -> int:
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def two_machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = (f"sg-a-{os.getpid()}", f"sg-b-{os.getpid()}")
    made = subprocess.run(["ip", "netns", "add", names[0]], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    try:
        ip("netns", "add", names[1])
        ip(*f"link add sg0 netns {names[0]} type veth peer name sg1 netns {names[1]}".split())
        for name, link, address in zip(names, ("sg0", "sg1"), ADDRESSES, strict=True):
            ip(*f"-n {name} addr add {address}/24 dev {link}".split())
            for which in ("lo", link):
                ip(*f"-n {name} link set {which} up".split())
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.mark.slow
def test_torchrun_starts_the_ranks_of_one_machine(tmp_path: Path) -> None:
    (told,) = finish(
        start(
            *TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()),
            *PROGRAM, "-o", "out.mp4", folder=tmp_path,
        )
    )  # fmt: skip
    assert f"{NUM_FRAMES} frames" in told
    assert count_frames(tmp_path / "out.mp4") == NUM_FRAMES


@pytest.mark.slow
def test_torchrun_starts_ranks_on_two_machines(
    tmp_path: Path, two_machines: tuple[str, str]
) -> None:
    """Rank 0 leads on the first; the second only has what its own address reaches."""
    folders = [tmp_path / name for name in ("first", "second")]
    processes: list[subprocess.Popen[str]] = []
    for node, (machine, folder) in enumerate(zip(two_machines, folders, strict=True)):
        folder.mkdir()
        processes.append(
            start(
                "ip", "netns", "exec", machine, *TORCHRUN, "--nnodes", "2",
                "--node-rank", str(node), "--nproc-per-node", "1",
                "--master-addr", ADDRESSES[0], "--master-port", "29500",
                *PROGRAM, "--split", "steps", "-o", "out.mp4", folder=folder,
            )
        )  # fmt: skip
    told = finish(*processes)
    assert [process.returncode for process in processes] == [0, 0], told
    assert count_frames(folders[0] / "out.mp4") == NUM_FRAMES
    assert not list(folders[1].iterdir())


@pytest.mark.slow
def test_a_mistake_ends_all_ranks_with_one_line(tmp_path: Path) -> None:
    """More ranks than blocks and passes: said before weights load, and torchrun comes back."""
    process = start(
        *TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()),
        *PROGRAM, "-o", "out.mp4", "--split", "3+1", folder=tmp_path,
    )  # fmt: skip
    (told,) = finish(process)
    assert process.returncode != 0
    assert "split 3+1 is for 4 ranks and there are 2; change one of them" in told
