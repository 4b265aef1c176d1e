"""`streamgen simulate`: who would be late, under which policy, on which hardware."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamgen.errors import ConfigError

EXAMPLES = """\
examples:
  streamgen simulate --hardware h100-1.3b-tiny-codec --sessions 8
  streamgen simulate evening.toml --curves evening.svg --most 16
  streamgen simulate --hardware h200-14b-tiny-codec --gpus 2000 --day 1000000 --stay 180
"""


def add_simulate(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "simulate",
        help="how many live streams some hardware serves in time, under which policy",
        description="Run a workload through the policies on a stopwatch instead of a model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("workload", nargs="?", type=Path, metavar="FILE", help="a workload, TOML")
    command.add_argument("--hardware", metavar="NAME", help="a profile; see --list-hardware")
    command.add_argument("--list-hardware", action="store_true", help="list profiles and end")
    command.add_argument("--sessions", type=int, metavar="N", help="sessions there from the start")
    command.add_argument("--gpus", type=int, metavar="N", help="engines behind the router")
    command.add_argument("--seconds", type=float, metavar="S", help="length of the simulation")
    command.add_argument("--stay", type=float, metavar="S", dest="stay_s", help="mean stay")
    command.add_argument("--seed", type=int, metavar="N", help="same seed, same trace")
    command.add_argument("--curves", type=Path, metavar="FILE", help="SVG of 1 to --most sessions")
    command.add_argument("--most", type=int, default=12, metavar="N", help="12 if left out")
    command.add_argument("--day", type=int, metavar="N", help="route N sessions in a day")
    command.set_defaults(command=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from streamgen.serving import simulation

    if options.list_hardware:
        print("\n".join(simulation.hardware_lines()))
        return 0
    if options.most < 1:
        raise ConfigError(f"--most {options.most} is no number of sessions; give at least 1")
    keys = ("hardware", "sessions", "gpus", "seconds", "stay_s", "seed")
    overrides = [(key, getattr(options, key)) for key in keys if getattr(options, key) is not None]
    if options.workload is None and options.sessions is None:
        overrides.append(("sessions", 1 if options.day or options.curves else 4))
    workload = simulation.read_workload(options.workload, overrides)
    if options.day is not None:
        print("\n".join(simulation.day_lines(workload, num_sessions=options.day)))
        return 0
    print("\n".join(simulation.table_lines(simulation.compare(workload))))
    if options.curves is not None:
        drawn = simulation.curves(workload, most=options.most)
        try:
            options.curves.write_text(drawn, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"cannot write {options.curves}: {error.strerror}; choose another place"
            ) from error
    return 0
