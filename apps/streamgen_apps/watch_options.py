"""Options of `streamgen run` for whoever looks into a run afterwards: recording, trace, metrics."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from streamgen.errors import SinkError

if TYPE_CHECKING:
    from streamgen.serving.host import Host

PROMETHEUS = ".prom"  # ending of a metrics file in that format


def add_watch_options(run: argparse.ArgumentParser) -> None:
    """Declare them."""
    run.add_argument(
        "--record", metavar="FILE", help="write all that streamgen replay needs for the same frames"
    )
    run.add_argument(
        "--trace",
        metavar="FILE",
        help="at the end, write what the newest ticks did, for chrome://tracing or ui.perfetto.dev",
    )
    run.add_argument(
        "--metrics", metavar="FILE", help="at the end, write all metrics: .json, or .prom"
    )


def check_watch_options(options: argparse.Namespace) -> None:
    """Before anything is made: SinkError for what could not be written at the end."""
    for name in ("record", "trace", "metrics"):
        value = getattr(options, name)
        if value is None:
            continue
        path = Path(value).expanduser()
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise SinkError(f"--{name} {value} cannot be written; name a file in a folder of yours")


def write_watched(options: argparse.Namespace, host: Host) -> None:
    """Write trace and metrics, if they were asked for. Raises SinkError."""
    if options.trace is not None:
        write_trace(options.trace, host)
    if options.metrics is not None:
        metrics = host.pipeline.metrics
        is_text = Path(options.metrics).suffix == PROMETHEUS
        text = metrics.to_prometheus() if is_text else json.dumps(metrics.to_json(), indent=1)
        try:
            Path(options.metrics).expanduser().write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise _unwritable("metrics", options.metrics, error) from error


def write_trace(path: str, host: Host, *, last_s: float | None = None) -> None:
    """Write what ticks did, those of the last so many seconds; SinkError if that cannot be."""
    trace = host.pipeline.engine.trace
    try:
        if last_s is None:
            trace.write(Path(path).expanduser())
        else:
            trace.write(Path(path).expanduser(), last_s=last_s)
    except OSError as error:
        raise _unwritable("trace", path, error) from error


def _unwritable(name: str, path: str, error: OSError) -> SinkError:
    return SinkError(f"--{name} {path}: cannot be written ({error.strerror}); choose another place")
