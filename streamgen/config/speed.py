"""What may be traded for speed; a section that may be left out, and then everything is settled by
the hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamgen.config.complaints import check_range, wrong

CodecChoice = Literal["auto", "plain", "inductor", "tensorrt"]


@dataclass(frozen=True, slots=True)
class SpeedConfig:
    """How a forward is carried out. All that changes pictures visibly is off by default: `linears`
    and what stands behind it."""

    compile: bool = False  # inductor compiles blocks and decoder at the first ticks; kept on disk
    codec: CodecChoice = "auto"  # auto: with compile, TensorRT where it is installed, else inductor
    overlap: Literal["auto", "off"] = "auto"  # auto: codec and copies on CUDA streams of their own
    graphs: Literal["auto", "off"] = "auto"  # auto: CUDA graphs on a GPU, lists of calls
    #                                          for the tiny model on a CPU: forwards that come again
    attention: Literal["auto", "torch"] = "auto"  # auto: on a GPU, the fastest that is installed
    linears: Literal["full", "fp8", "int8"] = "full"  # fp8: weights and activations; int8: weights
    clean_share: float = 1.0  # of the blocks, run by the pass that writes the clean cache, 0 to 1;
    #                           in the others keys of the last step stay; 0: there is no such pass
    reuse_steps: tuple[int, ...] = ()  # steps, 0 being the first, that take what reuse_blocks added
    #                                    at the step before instead of running them
    reuse_blocks: tuple[int, ...] = ()  # the first and the last of them, 0 being the model's first
    heads: str = ""  # a file of scripts/calibrate_heads.py, or "package": heads that it says to
    #                  ignore the past attend to their own chunk only; empty: all see all

    @property
    def saves_work(self) -> bool:
        return self.clean_share != 1 or bool(self.reuse_steps) or bool(self.heads)


def check_speed(speed: SpeedConfig, *, cache_mode: str, num_steps: int) -> None:
    """Raises ConfigError for settings of [speed] that this ladder and cache cannot follow."""
    check_range("speed.clean_share", speed.clean_share, 0, 1)
    if speed.clean_share != 1 and cache_mode != "clean":
        raise wrong(
            "speed.clean_share",
            speed.clean_share,
            f'reduces the clean pass of cache.mode = "clean" and it is "{cache_mode}"',
            "set it to 1",
        )
    steps, blocks = list(speed.reuse_steps), list(speed.reuse_blocks)
    if bool(steps) != bool(blocks):
        raise wrong(
            "speed.reuse_steps",
            steps,
            f"and speed.reuse_blocks = {blocks} have an effect together only",
            "set both or leave both out",
        )
    if not steps:
        return
    if steps != sorted(set(steps)) or not all(0 < step < num_steps for step in steps):
        raise wrong(
            "speed.reuse_steps",
            steps,
            f"must be rising steps from 1 to {num_steps - 1}: the first of the {num_steps} in "
            f"denoise.timesteps has none before it",
            "leave others out",
        )
    if len(blocks) != 2 or not 0 <= blocks[0] <= blocks[1]:
        raise wrong(
            "speed.reuse_blocks", blocks, "must be a first block and a last one", "use [1, 4]"
        )
    if cache_mode in ("per_step", "cascaded", "joint"):
        raise wrong(
            "speed.reuse_steps",
            steps,
            f'needs a cache row that one chunk has to itself and cache.mode is "{cache_mode}"',
            'leave it out or set cache.mode = "clean"',
        )


SETTLED_BY_HARDWARE = SpeedConfig()
