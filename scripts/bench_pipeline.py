"""What a model divided among processes of this CPU gives, beside what the planner expects of it.

    python scripts/bench_pipeline.py --out benchmarks/pipeline-gloo.json

One process is measured first: what a forward, encoding and decoding cost here and now. From that
the planner says what two ranks over gloo should give in each cache mode; then they are measured,
in turns with one process, so that what else runs on the machine is the same for both.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

from streamgen.clock import MonotonicClock
from streamgen.engine.pipeline import PipelinedExecutor
from streamgen.ops.backend import choose_backend
from streamgen.parallel.planner import LINKS, CodecPlace, Gpu, Reads, Wanted, plan
from streamgen.scheduling.profiles import PROFILES, HardwareProfile
from streamgen.serving.bench.machine import machine_facts
from streamgen.serving.host import Host
from streamgen.serving.stream import Stream

PROMPT = "a red ball bouncing over a green field"
RANKS = 2
WARM_UP = 12  # chunks
MODES = {
    "clean": (),
    "cascaded": ("cache.mode=cascaded",),
    "per_step": ("cache.mode=per_step",),
}


class Runner:
    """An endless stream, measured in rounds."""

    def __init__(self, settings: tuple[str, ...], gpus: int, split: str, threads: int) -> None:
        self._clock = MonotonicClock()
        overrides = (*settings, f"model.num_threads={threads}")
        self.host = Host("tiny-cpu", overrides=overrides, gpus=gpus, split=split)
        self._stream = Stream(self.host, prompt=PROMPT)
        self._frames = self.host.pipeline.geometry.num_pixel_frames(self.host.pipeline.recipe, 1)
        self.rates: list[float] = []
        self.bubbles: list[float] = []
        self._read(WARM_UP)

    def round(self, num_chunks: int) -> None:
        executor = self.host.pipeline.engine.executor
        ranks = executor if isinstance(executor, PipelinedExecutor) else None
        busy_s = 0.0 if ranks is None else sum(ranks.busy_s.values())
        began_s = self._clock.now()
        self._read(num_chunks)
        wall_s = self._clock.now() - began_s
        self.rates.append(num_chunks * self._frames / wall_s)
        if ranks is not None:
            worked_s = sum(ranks.busy_s.values()) - busy_s
            self.bubbles.append(1 - worked_s / wall_s / len(ranks.busy_s))

    def close(self) -> None:
        self._stream.close()
        self.host.close()

    def _read(self, num_chunks: int) -> None:
        for _ in range(num_chunks * self._frames):
            next(self._stream)


def expected(profile: HardwareProfile, mode: str, steps: int) -> dict[str, float]:
    """Pictures a second of two ranks, by their split, codec in a process of its own."""
    wanted = Wanted(fps=1.0, latency_s=None, reads=Reads(mode), steps=steps)
    ways = plan(profile, [Gpu(16.0)] * (RANKS + 1), LINKS["loopback"], wanted)
    return {one.split: one.fps for one in ways if one.codec is CodecPlace.OWN}


def measured_profile(runner: Runner) -> HardwareProfile:
    """The tiny model's profile with what this process has just seen."""
    costs = runner.host.pipeline.engine.latency.costs()
    return replace(PROFILES["tiny-cpu"], costs=costs, origin="measured in this run")


def measure(mode: str, rounds: int, chunks: int, threads: int) -> dict[str, object]:
    """One cache mode: one process, and each split over two, in turns."""
    runners = {"one process": Runner(MODES[mode], 1, "layers", threads)}
    for split in ("layers", "steps"):
        runners[split] = Runner(MODES[mode], RANKS, split, threads)
    try:
        for _ in range(rounds):
            for runner in runners.values():
                runner.round(chunks)
        one = runners["one process"]
        steps = one.host.pipeline.recipe.num_steps
        plans = expected(measured_profile(one), mode, steps)
        base = median(one.rates)
        return {
            "one process": {"frames_per_second": _spread(one.rates)},
            **{
                split: {
                    "frames_per_second": _spread(runner.rates),
                    "gain": round(median(runner.rates) / base, 3),
                    "bubble": round(median(runner.bubbles), 3),
                    "planned_frames_per_second": round(plans[split], 1),
                    "measured_over_planned": round(median(runner.rates) / plans[split], 3),
                }
                for split, runner in runners.items()
                if split != "one process"
            },
        }
    finally:
        for runner in runners.values():
            runner.close()


def _spread(rates: list[float]) -> dict[str, float]:
    return {
        "median": round(median(rates), 1),
        "lowest": round(min(rates), 1),
        "highest": round(max(rates), 1),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    options = parser.parse_args(arguments)
    result = {
        "machine": machine_facts(choose_backend("cpu", "float32", options.threads)),
        "settings": {
            "preset": "tiny-cpu",
            "ranks": RANKS,
            "threads": options.threads,
            "rounds": options.rounds,
            "chunks": options.chunks,
        },
        "modes": {
            mode: measure(mode, options.rounds, options.chunks, options.threads) for mode in MODES
        },
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["modes"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
