"""`streamgen bench`: how fast a preset runs here, and how far that is from the limit."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from streamgen.errors import ConfigError
from streamgen.serving.bench.measure import Effort
from streamgen.serving.bench.report import BenchOptions, compared_with, rows_of, run_bench
from streamgen_apps.logs import begin_logging

MOST = 1_000_000  # of anything counted: more is a mistake


def bench(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    begin_logging()
    for name, least in (
        ("rounds", 1), ("chunks", 2), ("warm_up", 1), ("cold", 0), ("memory_frames", 0)
    ):  # fmt: skip
        value = getattr(options, name)
        if not least <= value <= MOST:
            shown = name.replace("_", "-")
            raise ConfigError(f"--{shown} {value} is not in {least} to {MOST}; choose one that is")
    if options.memory_frames and options.memory_frames < 1000:
        raise ConfigError(
            f"--memory-frames {options.memory_frames} tell nothing; give 1000 or more"
        )
    stored = [Path(what) for what in options.compare if what.endswith(".json")]
    for path in stored:
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such file; give a result that --json wrote")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise ConfigError(f"{options.json}: its folder does not exist; make it first")
    found = run_bench(
        BenchOptions(
            preset=options.preset,
            overrides=tuple(options.overrides),
            compare=tuple(what for what in options.compare if not what.endswith(".json")),
            effort=Effort(options.rounds, options.chunks, options.warm_up),
            cold_starts=options.cold,
            memory_frames=options.memory_frames,
        ),
        tell=lambda text: print(f"streamgen bench: {text}", file=sys.stderr),
    )
    if stored:
        found["compared"] = {str(path): compared_with(found, path) for path in stored}
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    rows = rows_of(found)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0
