"""The options of `streamgen bench`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """What `streamgen bench --help` shows."""
    add = parser.add_argument
    add("--preset", default="tiny-cpu", metavar="NAME", help="a preset's name or a .toml file")
    add("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="change a setting of the preset; may be given again")  # fmt: skip
    add("--compare", action="append", default=[], metavar="WHAT",
        help='"plain" for the definitions in plain torch, key=value,key=value (both '
        "run in turns with this one), or the .json of an earlier run; repeatable")  # fmt: skip
    add("--rounds", type=int, default=5, metavar="N", help="rounds of every case (5)")
    add("--chunks", type=int, default=25, metavar="N", help="chunks of a round (25)")
    add("--warm-up", type=int, default=10, metavar="N", help="chunks before the first round (10)")
    add("--cold", type=int, default=1, metavar="N", help="cold starts of the program (1; 0: none)")
    add("--memory-frames", type=int, default=0, metavar="N", help="watch memory over N frames (0)")
    add("--json", type=Path, metavar="FILE", help="write the result here, too")
