"""Does what CI does: format, lint, types, floors, file sizes, tests. `--fast` leaves out tests.

`--install` gets the programs first that tests drive (system_programs.py), where it may.

Every step runs, also after one has failed; the exit code is 1 if any did.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from system_programs import install

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("streamgen", "kernels", "apps", "scripts")
UNATTENDED = "not gpu and not network"  # tests that any machine can run
MAX_LINES = 400  # over that, look for the second idea
PACKAGES = ("streamgen", "kernels/streamgen_kernels", "apps/streamgen_apps")


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    passes: Callable[[], bool]


def steps(*, with_tests: bool) -> list[Step]:
    """What is checked, fast things first."""
    python = sys.executable
    fast = [
        Step("format", lambda: _run(python, "-m", "ruff", "format", "--check", ".")),
        Step("lint", lambda: _run(python, "-m", "ruff", "check", ".")),
        Step("files", lambda: _report(file_faults(ROOT))),
        Step("floors", lambda: _run(python, "scripts/check_layers.py")),
        Step("types", lambda: _run(python, "-m", "pyright", "--pythonpath", python)),
    ]
    tests = Step("tests", lambda: _run(python, "-m", "pytest", "-q", "-m", UNATTENDED))
    return [*fast, tests] if with_tests else fast


def file_faults(root: Path) -> list[str]:
    """Python files of more than 400 lines, and folders that a wheel would leave out."""
    faults: list[str] = []
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            num_lines = len(path.read_text(encoding="utf-8").splitlines())
            if num_lines > MAX_LINES:
                shown = path.relative_to(root)
                faults.append(f"{shown}: {num_lines} lines, at most {MAX_LINES}; split it")
    for package in PACKAGES:
        folders = {path.parent for path in (root / package).rglob("*.py")}
        for folder in sorted(folders):
            if not (folder / "__init__.py").is_file():
                shown = folder.relative_to(root)
                faults.append(f"{shown}: no __init__.py, so the wheel would leave it out; add one")
    return faults


def _run(*command: str) -> bool:
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def _report(faults: list[str]) -> bool:
    for fault in faults:
        print(fault)
    return not faults


def main() -> int:
    """Run the steps, say what failed."""
    parser = argparse.ArgumentParser(description="What CI runs.")
    parser.add_argument("--fast", action="store_true", help="all but the tests")
    parser.add_argument("--install", action="store_true", help="get missing programs by apt-get")
    options = parser.parse_args()
    chosen = steps(with_tests=not options.fast)
    if options.install:
        chosen.insert(0, Step("programs", install))
    failed: list[str] = []
    for step in chosen:
        print(f"== {step.name}", flush=True)
        start_s = time.perf_counter()
        if not step.passes():
            failed.append(step.name)
        print(f"== {step.name}: {time.perf_counter() - start_s:.1f} s", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else f"all {len(chosen)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
