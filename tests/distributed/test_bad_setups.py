"""A setup that cannot work is refused in one line before weights load, and all ranks end."""

from __future__ import annotations

import os
import socket

import pytest

from streamgen.clock import MonotonicClock
from streamgen.errors import CheckpointError, ConfigError, StreamGenError
from streamgen.parallel import group as group_module
from streamgen.parallel.group import RankGroup
from streamgen.parallel.member import Member
from streamgen.serving.host import Host
from streamgen_apps.cli import main


def lacks_a_file(member: Member) -> None:
    if member.rank == 1:
        raise CheckpointError("model.safetensors is not there; copy it to every machine")
    member.receive()


def lacks_a_device(member: Member) -> None:
    if member.rank == 1:
        raise ConfigError("there is no GPU 1 for this rank, box has 1; ask for fewer ranks there")
    member.receive()


def waits(member: Member) -> None:
    member.receive()


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (lacks_a_file, CheckpointError, "rank 1: model.safetensors is not there"),
        (lacks_a_device, ConfigError, "rank 1: there is no GPU 1 for this rank"),
    ],
)
def test_what_a_rank_lacks_is_told_by_the_leader(run, kind: type[StreamGenError], words: str):
    """With its own exit code; the ranks that could have worked end, too."""
    group = RankGroup(2, MonotonicClock())
    try:
        group.start(range(2), run)
        group.gather()
        pids = list(group.pids().values())
        with pytest.raises(kind, match=words):
            group.receive()
    finally:
        group.kill()
    assert not any(is_alive(pid) for pid in pids)
    assert kind.exit_code in (2, 3)
    with socket.socket() as probe:  # the door is free again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((group.leader.host, group.leader.port))


def test_ranks_of_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions are named, before anything else is said."""
    other = (("Python", "3.99"), *group_module.versions()[1:])
    monkeypatch.setattr(group_module, "versions", lambda: other)
    group = RankGroup(1, MonotonicClock())
    try:
        group.start(range(1), waits)
        with pytest.raises(ConfigError, match=r"runs Python .*, rank 0 runs 3\.99; install the"):
            group.gather()
    finally:
        group.kill()


def test_an_address_that_is_not_here_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.7"):
        RankGroup(2, MonotonicClock(), host="203.0.113.7")


def test_a_port_that_is_taken_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is when rank 0 opens the store of a launch itself."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}
        for name, value in said.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        assert main(["run", "a red ball", "-o", "null:"]) == 2
    told = capsys.readouterr().err
    assert "the ranks cannot meet at 127.0.0.1:" in told
    assert "a free --master-port" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gpus", "7"), "7 ranks cannot share 6 blocks"),
        (("--gpus", "4", "--split", "steps"), "4 groups of ranks cannot share 3 passes"),
        (("--gpus", "2", "--split", "1+2"), "split 1+2 is for 3 ranks and there are 2"),
        (("--gpus", "2", "--codec", "ends"), "--codec ends chooses among GPUs and the model runs"),
        (("--gpus", "2", "--codec", "here"), "codec place 'here' is not known; known: first"),
        (("--gpus", "2", "--rebalance", "-1"), "a rebalance of -1 is not in 0 to 10"),
        (("--gpus", "65"), "65 GPUs are not in 2 to 64"),
        (("--codec", "own"), "--codec is for the work of several GPUs"),
        (("--gpus", "2", "--set", "model.weights=/no/such/file"), "/no/such/file"),
    ],
)
def test_what_the_command_cannot_divide_is_refused(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with exit code 2 or 3, and nothing has been started."""
    assert main(["run", "a red ball", "-o", "null:", *options]) in (2, 3)
    told = capsys.readouterr().err.strip()
    assert words in told
    assert len(told.splitlines()) == 1


def test_a_model_without_blocks_is_not_divided() -> None:
    with pytest.raises(ConfigError, match="no blocks to divide"):
        Host("identity-cpu", gpus=2).close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
