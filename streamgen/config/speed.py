"""What may be traded for speed; a section that may be left out, and then everything is settled by
the hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class SpeedConfig:
    """How a forward is carried out. Only `linears` changes pictures visibly."""

    compile: bool = False  # inductor compiles blocks and decoder at the first ticks; kept on disk
    graphs: Literal["auto", "off"] = "auto"  # auto: CUDA graphs on a GPU, none on a CPU
    attention: Literal["auto", "torch"] = "auto"  # auto: on a GPU, the fastest that is installed
    linears: Literal["full", "fp8", "int8"] = "full"  # fp8: weights and activations; int8: weights


SETTLED_BY_HARDWARE = SpeedConfig()
