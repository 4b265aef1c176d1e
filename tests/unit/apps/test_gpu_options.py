"""Options that divide a model are the same wherever a program takes them."""

from __future__ import annotations

import argparse
from functools import partial

import pytest

from streamgen.clock import SimulatedClock
from streamgen_apps.gpu_options import add_gpu_options, gpu_words, host_maker


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_gpu_options(parser)
    return parser.parse_args(words, argparse.Namespace(overrides=["cache.sinks=2"]))


def test_a_host_is_made_as_the_options_say() -> None:
    words = ("--gpus", "3", "--split", "2+1", "--codec", "own", "--rebalance", "0")
    make = host_maker("tiny-cpu", parsed(*words), SimulatedClock())
    assert isinstance(make, partial)
    assert make.args == ("tiny-cpu",)
    wanted = {"gpus": 3, "split": "2+1", "codec": "own", "rebalance": 0.0}
    assert {name: make.keywords[name] for name in wanted} == wanted
    assert make.keywords["overrides"] == ["cache.sinks=2"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--gpus", "2"),
        ("--gpus", "3", "--split", "2+1", "--codec", "ends", "--rebalance", "0.5"),
    ],
)
def test_a_command_that_is_started_gets_the_same(words: tuple[str, ...]) -> None:
    options = parsed(*words)
    assert parsed(*gpu_words(options)) == options
