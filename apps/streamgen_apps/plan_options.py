"""Options of `streamgen doctor --gpus`: hardware, picture and service level of a plan."""

from __future__ import annotations

import argparse
import re

from streamgen.errors import ConfigError
from streamgen.serving.planning import PlanOptions

DEFAULT_HARDWARE = "h100-1.3b"

PLAN_ONLY = (
    "hardware", "link", "speeds", "memory", "size", "fps", "latency", "steps", "reads", "lag",
)  # fmt: skip


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """The options, in a group of their own."""
    plan = parser.add_argument_group("how to divide a model among GPUs (computed, nothing runs)")
    plan.add_argument("--gpus", type=int, metavar="N", help="print every way to divide among N")
    plan.add_argument(
        "--hardware",
        metavar="NAME",
        help=f"GPU and model, as streamgen simulate lists them; {DEFAULT_HARDWARE}",
    )
    plan.add_argument("--link", metavar="NAME", help="nvlink, pcie, ethernet or loopback; nvlink")
    plan.add_argument(
        "--speeds", metavar="A,B,..", help="of each GPU, 1 being the hardware's; as 1,1,0.5"
    )
    plan.add_argument("--memory", type=float, metavar="GB", help="of each GPU")
    plan.add_argument("--size", metavar="HxW", help="of the picture")
    plan.add_argument("--fps", type=float, metavar="N", help="frames a second that are wanted; 16")
    plan.add_argument("--latency", type=float, metavar="S", help="at most, from clip to picture")
    plan.add_argument("--steps", type=int, metavar="N", help="denoise steps")
    plan.add_argument(
        "--reads", metavar="MODE", help="as cache.mode: clean, cascaded or per_step; per_step"
    )
    plan.add_argument("--lag", type=int, metavar="N", help="as cache.cascade_lag; 1")


def plan_options(options: argparse.Namespace) -> PlanOptions:
    """What was asked; ConfigError for what cannot be read."""
    return PlanOptions(
        gpus=options.gpus,
        hardware=options.hardware or DEFAULT_HARDWARE,
        link=options.link or "nvlink",
        speeds=_speeds(options.speeds),
        memory_gb=options.memory,
        size=_size(options.size),
        fps=16.0 if options.fps is None else options.fps,
        latency_s=options.latency,
        reads=options.reads or "per_step",
        steps=options.steps,
        lag=1 if options.lag is None else options.lag,
    )


def check_no_plan(options: argparse.Namespace) -> None:
    """ConfigError if the hardware of a plan was described and there is none."""
    for name in PLAN_ONLY:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} is for a plan; say among how many GPUs: --gpus N")


def _speeds(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"speeds {text!r} are no numbers; write --speeds 1,1,0.5") from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise ConfigError(f"size {text!r} is not known; write height and width as --size 480x832")
    height, width = text.split("x")
    return int(height), int(width)
