"""How `run`, `webcam` and `serve` divide a model among GPUs: the same options, the same rules."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from streamgen.errors import ConfigError

if TYPE_CHECKING:
    from streamgen.clock import Clock
    from streamgen.serving.host import Host

WAYS = ("split", "codec", "rebalance")  # options that say how the work of several is divided


def add_gpu_options(parser: argparse.ArgumentParser, *, what: str = "the model") -> None:
    """`what` is divided, in the words of --help."""
    parser.add_argument(
        "--gpus",
        type=int,
        default=1,
        metavar="N",
        help=f"divide {what} among N GPUs or processes",
    )
    parser.add_argument(
        "--split",
        metavar="HOW",
        help="with --gpus: layers, steps, or both, as 2+1: the GPUs of each group of steps",
    )
    parser.add_argument(
        "--codec",
        metavar="WHERE",
        help="with --gpus: what encodes and decodes: the first GPU, the ends (first and last), "
        "or one of its own; first",
    )
    parser.add_argument(
        "--rebalance",
        type=float,
        metavar="SHARE",
        help="with --gpus: move blocks while the slowest takes so much longer than the mean; "
        "0.15; 0: never",
    )


def check_gpu_options(options: argparse.Namespace) -> None:
    """Raises ConfigError for what cannot take effect, or does not go with torchrun."""
    from streamgen.serving.launching import launched

    launch = launched()
    if launch is not None and options.gpus not in (1, launch.num_ranks):
        raise ConfigError(
            f"torchrun has started {launch.num_ranks} processes and --gpus says {options.gpus}; "
            f"leave it out"
        )
    if launch is None and options.gpus == 1:
        for name in WAYS:
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name} is for the work of several GPUs; give --gpus too")


def host_maker(preset: str, options: argparse.Namespace, clock: Clock) -> Callable[[], Host]:
    """What loads a preset, divided as the options say."""
    from streamgen.serving.host import Host
    from streamgen.serving.launching import DEFAULT_CODEC, DEFAULT_REBALANCE

    return partial(
        Host,
        preset,
        overrides=options.overrides,
        clock=clock,
        gpus=options.gpus,
        split=options.split or "layers",
        codec=options.codec or DEFAULT_CODEC,
        rebalance=DEFAULT_REBALANCE if options.rebalance is None else options.rebalance,
    )


def gpu_words(options: argparse.Namespace) -> list[str]:
    """The same options once more, for a command that this one starts."""
    words = ["--gpus", str(options.gpus)]
    for name in WAYS:
        if getattr(options, name) is not None:
            words += [f"--{name}", str(getattr(options, name))]
    return words
