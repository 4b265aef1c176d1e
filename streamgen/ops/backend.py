"""What hardware there is, and what it is fast at: the only module that asks.

A choice is made once, at start, and logged; it is never discovered inside a tick.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import torch

from streamgen.errors import ConfigError

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Backend:
    """Where tensors live and in which precision the model runs."""

    device: torch.device
    dtype: torch.dtype


def choose_backend(device: str, dtype: str, num_threads: int) -> Backend:
    """Settle "auto" and set the number of CPU threads (0: one a core of this process).

    Raises ConfigError if a device was asked for that is not there.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError(
            'model.device = "cuda", but torch sees no GPU; set it to "auto" or "cpu", '
            "or install a CUDA build of torch"
        )
    chosen = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
    precision = _DTYPES.get(dtype) or _fast_dtype(chosen)
    if chosen.type == "cpu":
        torch.set_num_threads(num_threads or _num_cores())
    logger.info("device: %s, %s, %d CPU threads", chosen, precision, torch.get_num_threads())
    return Backend(chosen, precision)


def _fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs; float32 on CPUs, most of which only emulate bfloat16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _num_cores() -> int:
    """Cores that this process may use; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
