"""One pipeline under a stopwatch: whole streams first, then its parts.

Cases (a preset with settings of its own) are measured in turns, so that a load that comes and goes
falls on all of them alike, and ratios hold where absolute figures do not.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamgen.clock import Clock
from streamgen.errors import StreamGenError
from streamgen.metrics.json_value import Json
from streamgen.models.bundle import ModelBundle
from streamgen.serving.bench.machine import ROOT, Peaks, spread
from streamgen.serving.bench.stopwatch import without_arithmetic
from streamgen.serving.bench.work import forward_work
from streamgen.serving.host import Host
from streamgen.serving.playing import open_input
from streamgen.serving.stream import Stream
from streamgen.types import Clip

PROMPT = "a red ball bouncing over a green field during the day"
STYLE_PROMPT = "a pencil sketch"
TEST_PICTURES = "synthetic:"
Facts = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Case:
    """One pipeline to measure."""

    name: str
    preset: str
    overrides: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    chunks: int
    """Of every round."""
    warm_up: int
    """Chunks before the first round."""


class Runner:
    """An endless stream of one case, and what was measured of it so far."""

    def __init__(self, case: Case, clock: Clock, bundle: ModelBundle | None = None) -> None:
        self.case = case
        self._clock = clock
        with _environment(case.environment):
            began_s = clock.now()
            self.host = Host(case.preset, overrides=case.overrides, clock=clock, bundle=bundle)
            self.load_s = clock.now() - began_s
        self._stream = open_plain(self.host)
        self._frames_a_chunk = self.host.pipeline.geometry.num_pixel_frames(
            self.host.pipeline.recipe, 1
        )
        self.rates: list[float] = []
        self.chunk_s: list[float] = []
        self.ages_s: list[float] = []
        self.page_faults: list[float] = []
        """Pages that a chunk took of the system, by rounds: 0 where memory is used again."""

    def warm_up(self, num_chunks: int) -> float:
        """Seconds to the first frame; the rest of the chunks follow."""
        began_s = self._clock.now()
        next(self._stream)
        first_s = self._clock.now() - began_s
        for _ in range(num_chunks * self._frames_a_chunk):
            next(self._stream)
        return first_s

    def run_round(self, num_chunks: int) -> None:
        """Read chunks as fast as they come, and keep how long each took."""
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began_s = before_s = self._clock.now()
        for _ in range(num_chunks):
            frame = next(self._stream)
            for _ in range(self._frames_a_chunk - 1):
                next(self._stream)
            now_s = self._clock.now()
            self.chunk_s.append(now_s - before_s)
            if self.host.takes_video:
                self.ages_s.append(now_s - frame.captured_s)
            before_s = now_s
        self.rates.append(num_chunks * self._frames_a_chunk / (before_s - began_s))
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        self.page_faults.append(faults / num_chunks)

    def facts(self, peaks: Peaks) -> Facts:
        """All that is known after the rounds."""
        pipeline = self.host.pipeline
        config = pipeline.config
        return {
            "settings": {
                "preset": self.case.preset,
                "overrides": list(self.case.overrides),
                "environment": dict(self.case.environment),
                "task": config.task,
                "steps": pipeline.recipe.num_steps,
                "passes_a_chunk": pipeline.recipe.num_passes,
                "size": str(self.host.picture_size),
                "dtype": str(pipeline.backend.dtype).removeprefix("torch."),
                "device": str(pipeline.backend.device),
                "operations": pipeline.backend.operations.name,
                "frames_a_chunk": self._frames_a_chunk,
                "window_latent_frames": pipeline.recipe.sinks + pipeline.recipe.ring,
            },
            "frames_per_second": spread(self.rates),
            "chunk_ms": percentiles(self.chunk_s),
            "frame_age_ms": percentiles(self.ages_s) if self.ages_s else None,
            "load_s": round(self.load_s, 3),
            "page_faults_a_chunk": spread(self.page_faults, digits=1),
            "work": self._work(peaks),
            "peak_memory_mb": round(pipeline.backend.peak_memory_bytes() / 2**20, 1),
        }

    def _work(self, peaks: Peaks) -> Facts:
        """What the DiT computes and moves for a chunk, and how near that is to the limit."""
        pipeline = self.host.pipeline
        recipe, geometry = pipeline.recipe, pipeline.geometry
        tokens = pipeline.bundle.dit.grid(geometry.latent_height, geometry.latent_width).num_tokens
        rows = sum(1 + recipe.has_negative(step) for step in range(recipe.num_passes))
        work = forward_work(
            pipeline.bundle.dit,
            rows=rows / recipe.num_passes,
            query_tokens=tokens * recipe.chunk_frames,
            window_tokens=tokens * (recipe.sinks + recipe.ring),
        )
        median_s = float(np.median(self.chunk_s))
        limit_s = work.limit_s(peaks) * recipe.num_passes
        per_s = recipe.num_passes / median_s
        return {
            "dit_gflop_a_pass": round(work.flops / 1e9, 4),
            "dit_mb_a_pass": round(work.num_bytes / 1e6, 3),
            "tflops_reached": round(work.flops * per_s / 1e12, 4),
            "gb_per_s_reached": round(work.num_bytes * per_s / 1e9, 3),
            "limit_frames_per_second": round(self._frames_a_chunk / limit_s, 2)
            if limit_s
            else None,
            "fraction_of_limit": round(limit_s / median_s, 4),
        }

    def parts(self, repeats: int) -> Facts:
        """Milliseconds of encode, decode and hand-over of one clip, and of encoding a prompt."""
        pipeline = self.host.pipeline
        size, num_frames = self.host.picture_size, self._frames_a_chunk
        pixels = np.random.default_rng(0).integers(
            0, 256, (num_frames, size.height, size.width, 3), dtype=np.uint8
        )
        encoder, decoder = pipeline.new_encoder(), pipeline.new_decoder()
        first = pipeline.geometry.num_pixel_frames(pipeline.recipe, 0)
        lead = np.repeat(pixels[:1], first, axis=0)
        latents_FCHW = encoder.encode(encoder.pixels(Clip(lead, 0.0, 0.0)))
        seconds: dict[str, list[float]] = {
            "encode_ms": [], "decode_ms": [], "hand_over_ms": [], "prompt_ms": []
        }  # fmt: skip
        for turn in range(repeats + 2):
            marks = [self._mark()]
            if turn:
                latents_FCHW = encoder.encode(encoder.pixels(Clip(pixels, 0.0, 0.0)))
            marks.append(self._mark())
            count = first if turn == 0 else num_frames
            decoded = decoder.decode(latents_FCHW, num_frames=count, pts_s=0.0, captured_s=0.0)
            marks.append(self._mark())
            decoded.wait()
            marks.append(self._mark())
            pipeline.bundle.text.encode(PROMPT)
            marks.append(self._mark())
            if turn > 1:  # the first of a stream is another one, the second may be slow
                for name, before, after in zip(seconds, marks, marks[1:], strict=False):
                    seconds[name].append(after - before)
        return {name: percentiles(values) for name, values in seconds.items()}

    def _mark(self) -> float:
        self.host.pipeline.backend.synchronise()
        return self._clock.now()

    def first_frames_warm_s(self, repeats: int) -> list[float]:
        """From opening another stream on this host to its first frame."""
        waits: list[float] = []
        for _ in range(repeats):
            began_s = self._clock.now()
            with open_plain(self.host) as stream:
                next(stream)
                waits.append(self._clock.now() - began_s)
        return waits

    def close(self) -> None:
        self._stream.close()
        self.host.close()


def open_plain(host: Host, *, seed: int = 0) -> Stream:
    """An endless stream of the host's task: from a prompt, or over endless test pictures."""
    if not host.takes_video:
        return Stream(host, prompt=PROMPT, seed=seed)
    return Stream(host, prompt=STYLE_PROMPT, source=open_input(TEST_PICTURES, host), seed=seed)


def measure_rounds(runners: Sequence[Runner], effort: Effort) -> list[float]:
    """Warm up, then rounds in turns; seconds to the first frame of each."""
    firsts = [runner.warm_up(effort.warm_up) for runner in runners]
    for _ in range(effort.rounds):
        for runner in runners:
            runner.run_round(effort.chunks)
    return firsts


def overhead(runner: Runner, effort: Effort, clock: Clock) -> Facts:
    """What the engine itself takes of a chunk: everything, with model and codec taking no time."""
    bundle = without_arithmetic(runner.host.pipeline.bundle)
    empty = Runner(runner.case, clock, bundle=bundle)
    try:
        empty.warm_up(effort.warm_up)
        for _ in range(effort.rounds):
            empty.run_round(effort.chunks)
            runner.run_round(effort.chunks)
    finally:
        empty.close()
    own_s = float(np.median(empty.chunk_s))
    whole_s = float(np.median(runner.chunk_s[-effort.rounds * effort.chunks :]))
    return {
        "engine_ms_a_chunk": round(1e3 * own_s, 4),
        "whole_ms_a_chunk": round(1e3 * whole_s, 3),
        "share": round(own_s / whole_s, 4),
    }


def first_frames_cold_s(case: Case, repeats: int, clock: Clock) -> list[float]:
    """From starting `streamgen run` as a program to the first byte of its first frame."""
    command = [sys.executable, "-m", "streamgen_apps.cli", "run", PROMPT, "--preset", case.preset,
               "--frames", "4", "-o", "raw:"]  # fmt: skip
    for override in case.overrides:
        command += ["--set", override]
    paths = [str(ROOT), str(ROOT / "apps"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    environment |= dict(case.environment)
    waits: list[float] = []
    for _ in range(repeats):
        began_s = clock.now()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as program:
            assert program.stdout is not None
            byte = program.stdout.read(1)
            waits.append(clock.now() - began_s)
            _, errors = program.communicate()
        if not byte or program.returncode:
            said = " ".join(errors.decode(errors="replace").splitlines()[-1:])
            raise StreamGenError(f"streamgen run failed: {said}")
    return waits


def memory_slope(runner: Runner, num_frames: int, every: int = 100) -> Facts:
    """Resident memory over one long stream, its slope by least squares after a tenth of it."""
    frames: list[int] = []
    sizes_mb: list[float] = []
    with open_plain(runner.host, seed=1) as stream:
        for index in range(num_frames + 1):
            if index % every == 0:
                frames.append(index)
                sizes_mb.append(_resident_mb())
            next(stream)
    late = len(frames) // 10
    slope = float(np.polyfit(frames[late:], sizes_mb[late:], 1)[0]) * 1000 if late else None
    return {
        "frames": num_frames,
        "first_mb": round(sizes_mb[0], 1),
        "last_mb": round(sizes_mb[-1], 1),
        "slope_mb_per_1000_frames": None if slope is None else round(slope, 4),
    }


def percentiles(seconds: Sequence[float]) -> Facts:
    """Median, p99 and extremes, in milliseconds."""
    values_ms = 1e3 * np.asarray(seconds)
    return {
        "p50": round(float(np.median(values_ms)), 3),
        "p99": round(float(np.percentile(values_ms, 99)), 3),
        "lowest": round(float(values_ms.min()), 3),
        "highest": round(float(values_ms.max()), 3),
        "count": len(values_ms),
    }


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables while a pipeline is built: what they choose is chosen then."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
