"""What a figure was measured on, and how fast this machine can multiply and copy at all."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from streamgen.clock import Clock
from streamgen.metrics.json_value import Json
from streamgen.ops.backend import Backend, num_cores

ROOT = Path(__file__).resolve().parents[3]
REPEATS = 5
MATRIX = {"cuda": 8192, "cpu": 1024}  # rows and columns of the product
COPY_BYTES = {"cuda": 4 << 30, "cpu": 256 << 20}  # several times any cache


@dataclass(frozen=True, slots=True)
class Peaks:
    """The most that was seen of this machine, on random numbers."""

    tflops: float
    """Of one large matrix product in the model's precision."""
    gb_per_s: float
    """Of one large copy, bytes read and written counted."""

    def facts(self) -> dict[str, Json]:
        return {"tflops": round(self.tflops, 4), "gb_per_s": round(self.gb_per_s, 2)}


def measure_peaks(backend: Backend, clock: Clock) -> Peaks:
    """One large product and one large copy, the best of a few after a warm-up."""
    device, kind = backend.device, backend.device.type
    side, num_bytes = MATRIX[kind], COPY_BYTES[kind]
    left, right = (torch.randn(side, side, device=device).to(backend.dtype) for _ in range(2))
    product_s = _best(lambda: torch.mm(left, right), backend, clock)
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    copy_s = _best(lambda: target.copy_(source), backend, clock)
    return Peaks(2 * side**3 / product_s / 1e12, 2 * num_bytes / copy_s / 1e9)


def _best(run: object, backend: Backend, clock: Clock) -> float:
    assert callable(run)
    times = []
    for _ in range(REPEATS + 1):
        backend.synchronise()
        began_s = clock.now()
        run()
        backend.synchronise()
        times.append(clock.now() - began_s)
    return min(times[1:])


def machine_facts(backend: Backend) -> dict[str, Json]:
    """Hardware, versions, load, date and commit."""
    return {
        "device": backend.device_name(),
        "cpu": cpu_name(),
        "cores_of_this_process": num_cores(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
    }


def spread(values: Sequence[float], *, digits: int = 3) -> dict[str, Json]:
    """Median and extremes; nothing is left out as an outlier."""
    return {
        "median": round(statistics.median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
        "repeats": len(values),
    }


def cpu_name() -> str:
    """What the processor calls itself; empty where nobody says."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor()


def _commit() -> str:
    """Of the sources, with a + if they differ from it; empty outside a clone."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    is_changed = bool(_git("status", "--porcelain", "--untracked-files=no"))
    return commit + "+" if commit and is_changed else commit


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
