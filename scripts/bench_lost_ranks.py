"""How long a stream's last picture is held when one of its ranks is killed.

    python scripts/bench_lost_ranks.py

Starts `streamgen run --gpus 2` and kills (-9) each of its ranks in turn, in several programs. The
gap is what the program itself counts and tells: from the last tick that went well before the death
to the first new chunk after it. Needs Linux, for it looks into /proc for the ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from streamgen.clock import Clock, MonotonicClock
from streamgen.ops.backend import choose_backend
from streamgen.serving.bench.machine import machine_facts

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a red ball bouncing over a green field"
RANKS = 2
STEADY_S = 3.0  # of playing before each death
PATIENCE_S = 60.0
HELD = re.compile(r"held for ([0-9.]+) s")


def gaps_of_one_program(split: str, clock: Clock) -> list[float]:
    """Each rank killed once, in their order: the seconds that the program tells of each."""
    command = [sys.executable, "-m", "streamgen_apps.cli", "run", PROMPT, "-o", "null:"]
    command += ["--gpus", str(RANKS), "--split", split, "--set", "model.num_threads=1"]
    with tempfile.TemporaryDirectory() as folder:
        film, told = Path(folder) / "film.mp4", Path(folder) / "told"
        with told.open("w") as errors:
            program = subprocess.Popen([*command, "-o", str(film)], stderr=errors)
        try:
            wait_until(clock, lambda: film_has_begun(Path(folder)), program, told)
            for rank in range(RANKS):
                wait_until(clock, lambda: len(ranks_of(program.pid)) == RANKS, program, told)
                clock.sleep(STEADY_S)
                os.kill(ranks_of(program.pid)[rank], signal.SIGKILL)
                wait_until(clock, lambda gaps=rank + 1: len(held(told)) == gaps, program, told)
            return held(told)
        finally:
            program.send_signal(signal.SIGINT)
            program.wait(timeout=PATIENCE_S)


def film_has_begun(folder: Path) -> bool:
    return any(one.name != "told" for one in folder.iterdir())


def held(told: Path) -> list[float]:
    return [float(seconds) for seconds in HELD.findall(told.read_text())]


def wait_until(
    clock: Clock, is_so: Callable[[], bool], program: subprocess.Popen[bytes], told: Path
) -> None:
    deadline_s = clock.now() + PATIENCE_S
    while not is_so():
        if clock.now() > deadline_s or program.poll() is not None:
            raise SystemExit(f"the stream does not go on: {told.read_text()[-500:]}")
        clock.sleep(0.05)


def ranks_of(leader: int) -> list[int]:
    """Processes of the ranks, oldest first: children of the leader's server that forks."""
    servers = [one for one in children(leader) if b"forkserver" in command_of(one)]
    return sorted(rank for server in servers for rank in children(server))


def children(parent: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def spread(gaps_s: list[float]) -> dict[str, float]:
    return {
        "kills": len(gaps_s),
        "median_s": round(median(gaps_s), 2),
        "lowest_s": min(gaps_s),
        "highest_s": max(gaps_s),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "lost-ranks.json")
    parser.add_argument("--programs", type=int, default=5, metavar="N", help="of each split")
    options = parser.parse_args()
    clock = MonotonicClock()
    facts = machine_facts(choose_backend("cpu", "float32", 1))
    found: dict[str, object] = {}
    for split in ("layers", "steps"):
        programs = [gaps_of_one_program(split, clock) for _ in range(options.programs)]
        by_rank = list(zip(*programs, strict=True))
        found[split] = {
            "all": spread([gap_s for program in programs for gap_s in program]),
            **{f"rank {rank}": spread(list(gaps)) for rank, gaps in enumerate(by_rank)},
        }
        print(json.dumps({split: found[split]}), flush=True)
    settings = {"preset": "tiny-cpu", "ranks": RANKS, "threads": 1, "programs": options.programs}
    record = {"machine": facts, "settings": settings, "held": found}
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
