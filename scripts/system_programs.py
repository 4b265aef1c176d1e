"""Programs that tests drive and that pip does not bring: which are missing, and how to get them.

On Debian and its kin, as root, `install` gets them with apt-get. Elsewhere the tests that need one
skip and say so. One row here a program; a test asks `find` for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Program:
    """`names`: any of these in the PATH will do."""

    names: tuple[str, ...]
    package: str
    purpose: str


CHROMIUM = Program(("chromium", "chromium-browser"), "chromium", "the web page in a browser")
NODE = Program(("node",), "nodejs", "the TypeScript client in Node")
TYPESCRIPT = Program(("tsc",), "node-typescript", "the TypeScript client's types")  # 69 MB
PROGRAMS = (CHROMIUM, NODE, TYPESCRIPT)


def find(program: Program) -> str | None:
    """Where a program is; None if it is not installed."""
    return next(filter(None, map(shutil.which, program.names)), None)


def missing() -> list[Program]:
    return [program for program in PROGRAMS if find(program) is None]


def install() -> bool:
    """Get what is missing if this machine lets us; False only if that was tried and failed."""
    wanted = missing()
    if not wanted:
        return True
    packages = [program.package for program in wanted]
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        for program in wanted:
            print(f"{program.names[0]} is missing, tests skip: {program.purpose}")
        print(f"to run them: sudo apt-get install --no-install-recommends {' '.join(packages)}")
        return True
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    for step in (["apt-get", "update", "--quiet"], command):
        if subprocess.run(step, env=environment, check=False).returncode != 0:
            return False
    return not missing()
