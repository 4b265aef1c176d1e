"""SloAware live, with the tiny model's real pictures: python scripts/bench_slo_live.py

Real sessions, engine, model and clock. Each forward is stretched to a given length (so much, and
so much a row): what else this machine does decides nothing, and the "hardware" can be slowed down
in mid-run. The tests run the same on a simulated clock (tests/simulation/test_live_slo.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from streamgen.clock import Clock, MonotonicClock, SimulatedClock
from streamgen.errors import CapacityError
from streamgen.media.frame_queue import FileFrameQueue, LiveFrameQueue
from streamgen.models.bundle import ModelBundle
from streamgen.models.registry import load_bundle
from streamgen.models.wan.dit import WanDiT
from streamgen.scheduling.service import ServiceLevel
from streamgen.serving.host import Host, OpenSession
from streamgen.types import Frame, Pixels

SIZE = 64  # pixels, height and width
FPS = 4.0  # few, so that a busy machine keeps up with encoding and decoding them
CLIP = 4
SETTINGS = (
    f"picture.height={SIZE}", f"picture.width={SIZE}", "model.num_threads=1",
    "denoise.guidance=none", "denoise.guidance_scale=1.0", f"picture.fps={FPS:g}",
)  # fmt: skip
LIVE = ServiceLevel(fps=FPS, first_frame_s=6.0, latency_s=3.0, min_steps=1)
FIXED_S, ROW_S = 0.05, 0.08  # of a forward: two sessions of four steps keep it busy
PROMPT = "a pencil sketch"


@dataclass
class Pace:
    """How long a forward lasts, at least."""

    clock: Clock
    row_s: float
    factor: float = 1.0
    _began_s: float = 0.0

    def put_on(self, bundle: ModelBundle) -> ModelBundle:
        """Stretch every forward of a model's blocks."""
        dit = bundle.dit
        assert isinstance(dit, WanDiT)

        def begin(_: nn.Module, __: object) -> None:
            self._began_s = self.clock.now()

        def end(_: nn.Module, inputs: tuple[torch.Tensor, ...], __: object) -> None:
            wanted_s = self.factor * (FIXED_S + self.row_s * inputs[0].shape[0])
            self.clock.sleep(self._began_s + wanted_s - self.clock.now())

        dit.patch_embedding.register_forward_pre_hook(begin)
        dit.head.register_forward_hook(end)
        return bundle


@dataclass
class Viewer:
    """One camera and one pair of eyes."""

    opened: OpenSession
    queue: LiveFrameQueue
    began_s: float
    num_given: int = 0
    ages: list[tuple[float, float]] = field(default_factory=list)
    """(time, age of the oldest picture) of every clip."""
    num_shown: int = 0

    def turn(self, now_s: float) -> None:
        """Give the pictures whose time has come; look at what has come out."""
        while (time_s := self.began_s + self.num_given / FPS) <= now_s:
            self.queue.put(Frame(picture(self.num_given), self.num_given / FPS, time_s))
            self.num_given += 1
        clips = self.opened.session.clips
        while clips:
            clip = clips.popleft().wait()
            self.ages.append((now_s, now_s - clip.captured_s))
            self.num_shown += clip.num_frames


def picture(number: int) -> Pixels:
    """A square that goes its way: nothing of it stands still."""
    pixels = np.full((SIZE, SIZE, 3), 60, np.uint8)
    at = (3 * number) % (SIZE - 16)
    pixels[at : at + 16, 16:40] = (200, 60 + at, 40)
    return pixels


class Evening:
    """A host and its viewers; `run` lets time pass."""

    def __init__(self, clock: Clock, *, policy: str = "slo_aware", row_s: float = ROW_S) -> None:
        self.clock = clock
        self.pace = Pace(clock, row_s)
        bundle = load_bundle("tiny", "package", device=torch.device("cpu"), dtype=torch.float32)
        overrides = (*SETTINGS, f"engine.policy={policy}", "engine.sessions=14")
        self.host = Host(
            "tiny-cpu-v2v", overrides=overrides, clock=clock, bundle=self.pace.put_on(bundle)
        )
        self.is_governed = policy == "slo_aware"
        self.viewers: list[Viewer] = []
        self.levels: list[tuple[float, int]] = []
        self.refusals: list[str] = []

    def open(self, *, seed: int = 0, service: ServiceLevel = LIVE) -> Viewer | None:
        """One more viewer, if the host has a place for one."""
        queue = LiveFrameQueue(CLIP + 2)
        try:
            opened = self.host.open_live(
                PROMPT, queue=queue, seed=seed, service=service if self.is_governed else None,
                max_waiting_clips=4,
            )  # fmt: skip
        except CapacityError as error:
            self.refusals.append(str(error))
            return None
        self.viewers.append(Viewer(opened, queue, self.clock.now()))
        return self.viewers[-1]

    def run(self, seconds: float) -> None:
        until_s = self.clock.now() + seconds
        level = self.host.pipeline.engine.meters.level
        while (now_s := self.clock.now()) < until_s:
            for viewer in self.viewers:
                viewer.turn(now_s)
            self.host.tick()
            if not self.levels or self.levels[-1][1] != int(level.value):
                self.levels.append((self.clock.now(), int(level.value)))

    def misses(self) -> tuple[int, int]:
        """(missed, due) chunks of all viewers."""
        reports = [viewer.opened.session.report for viewer in self.viewers]
        return sum(r.num_missed for r in reports), sum(r.num_due for r in reports)

    def ages(self, since_s: float, until_s: float) -> list[float]:
        return sorted(
            age for viewer in self.viewers for time_s, age in viewer.ages
            if since_s <= time_s < until_s
        )  # fmt: skip


def overload(
    clock: Clock, *, policy: str, num_asked: int, seconds: float, row_s: float = ROW_S
) -> dict[str, object]:
    """More viewers than there is room for, one after the other; does latency grow?"""
    evening = Evening(clock, policy=policy, row_s=row_s)
    with evening.host:
        for seed in range(num_asked):
            evening.open(seed=seed)
            evening.run(1.0)
        evening.run(2.0)
        began_s = clock.now()
        shown = sum(viewer.num_shown for viewer in evening.viewers)
        evening.run(seconds)
        half_s = began_s + seconds / 2
        first, second = evening.ages(began_s, half_s), evening.ages(half_s, clock.now())
        missed, due = evening.misses()
        num_inside = len(evening.viewers)
        pictures = sum(viewer.num_shown for viewer in evening.viewers) - shown
        return {
            "policy": policy,
            "asked": num_asked,
            "admitted": num_inside,
            "a_refusal": evening.refusals[0] if evening.refusals else None,
            "missed_percent": _percent(missed, due) if evening.is_governed else None,
            "age_p99_first_half_s": _quantile(first, 0.99),
            "age_p99_second_half_s": _quantile(second, 0.99),
            "age_highest_s": round(max([*first, *second], default=0.0), 3),
            "promised_s": LIVE.latency_s,
            "pictures_a_second_each": round(pictures / seconds / max(1, num_inside), 1),
            "level": evening.levels[-1][1],
        }


def slowdown(clock: Clock, *, num_viewers: int, seconds: float) -> dict[str, object]:
    """The hardware loses half of its speed, for so many seconds, and gets it back."""
    evening = Evening(clock)
    with evening.host:
        for seed in range(num_viewers):
            evening.open(seed=seed)
            evening.run(0.1)
        evening.run(seconds / 2)
        slow_s, before = clock.now(), evening.levels[-1][1]
        evening.pace.factor = 2.0
        evening.run(seconds)
        fast_s = clock.now()
        evening.pace.factor = 1.0
        evening.run(2 * seconds)
        down = [t for t, level in evening.levels if slow_s < t < fast_s and level > before]
        back = [t for t, level in evening.levels if t > fast_s and level <= before]
        settled = evening.ages(slow_s + 2.0, fast_s)
        missed, due = evening.misses()
        return {
            "viewers": len(evening.viewers),
            "answered_after_s": round(down[0] - slow_s, 2) if down else None,
            "age_p99_from_2_s_on_s": _quantile(settled, 0.99),
            "promised_s": LIVE.latency_s,
            "undone_after_s": round(back[0] - fast_s, 2) if back else None,
            "missed_percent": _percent(missed, due),
            "levels": [(round(t - slow_s, 2), level) for t, level in evening.levels],
        }


def constant_load(clock: Clock, *, num_viewers: int, seconds: float) -> dict[str, object]:
    """Does the ladder stand still while nothing changes?"""
    evening = Evening(clock)
    with evening.host:
        for seed in range(num_viewers):
            evening.open(seed=seed)
            evening.run(0.1)
        evening.run(3.0)
        began_s = clock.now()
        evening.run(seconds)
        times = [time_s for time_s, _ in evening.levels if time_s > began_s]
        windows = [sum(0 <= t - start < 10.0 for t in times) for start in times]
        missed, due = evening.misses()
        return {
            "viewers": len(evening.viewers),
            "seconds": seconds,
            "most_changes_in_10_s": max(windows, default=0),
            "missed_percent": _percent(missed, due),
            "level": evening.levels[-1][1],
        }


def alone_and_beside(clock: Clock, *, num_clips: int) -> dict[str, object]:
    """The greatest difference of a session's pictures alone and beside two others, in levels."""
    alone = _drawn(clock, others=0, num_clips=num_clips)
    beside = _drawn(clock, others=2, num_clips=num_clips)
    difference = np.abs(alone.astype(int) - beside.astype(int))
    return {
        "pictures": len(alone),
        "highest_difference_levels": int(difference.max()),
        "share_of_values_that_differ": round(float((difference > 0).mean()), 6),
        "deviation_of_the_pictures_levels": round(float(alone.std()), 1),
    }


def _drawn(clock: Clock, *, others: int, num_clips: int) -> Pixels:
    evening = Evening(clock, row_s=0.001)
    with evening.host as host:
        sessions: list[OpenSession] = []
        for seed in range(1 + others):
            queue = FileFrameQueue(CLIP * (num_clips + 4))
            for number in range(CLIP * (num_clips + 4)):
                queue.put(Frame(picture(number + 5 * seed), number / FPS, clock.now()))
            sessions.append(
                host.open_live(
                    PROMPT,
                    queue=queue,
                    seed=seed,
                    max_waiting_clips=num_clips + 4,
                    service=ServiceLevel(fps=FPS, first_frame_s=60.0),
                )
            )
        clips: list[Pixels] = []
        while len(clips) < num_clips:
            host.tick()
            while sessions[0].session.clips:
                clips.append(sessions[0].session.clips.popleft().wait().pixels.copy())
        return np.concatenate(clips[:num_clips])


def _quantile(rising: Sequence[float], share: float) -> float | None:
    return round(rising[int(share * (len(rising) - 1))], 3) if rising else None


def _percent(part: int, whole: int) -> float:
    return round(100 * part / max(1, whole), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/slo-live.json"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock, seconds = MonotonicClock(), options.seconds
    parts: tuple[tuple[str, Callable[[], dict[str, object]]], ...] = (
        ("overload", lambda: overload(clock, policy="slo_aware", num_asked=14, seconds=seconds)),
        (
            "overload_without_deadlines",
            lambda: overload(clock, policy="stream_batch", num_asked=14, seconds=seconds),
        ),
        ("slowdown_by_half", lambda: slowdown(clock, num_viewers=2, seconds=seconds)),
        ("constant_load", lambda: constant_load(clock, num_viewers=5, seconds=2 * seconds)),
        ("same_pictures", lambda: alone_and_beside(SimulatedClock(), num_clips=12)),
    )
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    load = round(os.getloadavg()[0], 2)
    result: dict[str, object] = {
        "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
        "load_average_before": load,
        "commit": done.stdout.strip() or "unknown",
        "model": f"tiny-cpu-v2v, {SIZE}x{SIZE} pixels, {FPS:g} pictures/s, without guidance",
        "a_forward_lasts_s": {"fixed": FIXED_S, "a_row": ROW_S, "note": "stretched to this"},
    }
    for name, part in parts:
        result[name] = part()
        print(name, result[name], flush=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
