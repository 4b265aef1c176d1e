"""Hosts of the tiny model at a small size, one of each kind for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamgen import Host

SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    with Host("tiny-cpu", overrides=SMALL) as host:
        yield host


@pytest.fixture
def host(shared: Host) -> Iterator[Host]:
    """The same model and engine for all tests, with no session left over from another one."""
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def shared_video() -> Iterator[Host]:
    with Host("tiny-cpu-v2v", overrides=SMALL) as host:
        yield host


@pytest.fixture
def video_host(shared_video: Host) -> Iterator[Host]:
    yield shared_video
    shared_video.close()
