"""What hardware there is, and what it is fast at: the only module that asks.

A choice is made once, at start, and logged; it is never discovered inside a tick.
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from streamgen.errors import ConfigError
from streamgen.ops.operations import PLAIN, Operations

logger = logging.getLogger(__name__)

FP8_CAPABILITY = (8, 9)  # Ada; also what Triton wants for e4m3
KILOBYTE = 1024  # the unit of ru_maxrss on Linux
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Backend:
    """Where tensors live and in which precision the model runs."""

    device: torch.device
    dtype: torch.dtype
    operations: Operations = PLAIN

    def device_name(self) -> str:
        """What the device is called; "cpu" for one."""
        is_cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if is_cuda else "cpu"

    def synchronise(self) -> None:
        """Wait until the device has done all that was asked of it. Never inside a tick."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory_bytes(self) -> int:
        """The most memory that this process ever held: of the GPU where there is one, else RAM."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE


def choose_backend(device: str, dtype: str, num_threads: int) -> Backend:
    """Settle "auto" and set the number of CPU threads (0: one a core of this process).

    Raises ConfigError if a device was asked for that is not there, or STREAMGEN_KERNELS is wrong.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError(
            'model.device = "cuda", but torch sees no GPU; set it to "auto" or "cpu", '
            "or install a CUDA build of torch"
        )
    chosen = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
    precision = DTYPES.get(dtype) or _fast_dtype(chosen)
    if chosen.type == "cpu":
        use_threads(num_threads or num_cores())
    logger.info("device: %s, %s, %d CPU threads", chosen, precision, torch.get_num_threads())
    return Backend(chosen, precision, choose_operations(chosen, precision))


def choose_operations(device: torch.device, dtype: torch.dtype) -> Operations:
    """The fastest table of operations for a device; the definitions with STREAMGEN_KERNELS=off.

    Raises ConfigError if STREAMGEN_KERNELS is neither "auto" nor "off".
    """
    wanted = os.environ.get("STREAMGEN_KERNELS", "auto")
    if wanted not in ("auto", "off"):
        raise ConfigError(f'STREAMGEN_KERNELS = "{wanted}" is neither auto nor off; unset it')
    if wanted == "off":
        chosen, reason = PLAIN, "STREAMGEN_KERNELS=off"
    elif device.type == "cuda":
        chosen, reason = _kernels()
    elif dtype is torch.float32:
        from streamgen.ops.few_calls import FEW_CALLS

        chosen, reason = FEW_CALLS, "float32 on a CPU"
    else:
        chosen, reason = PLAIN, f"{dtype} on a CPU"
    logger.info("operations: %s (%s)", chosen.name, reason)
    return chosen


def _kernels() -> tuple[Operations, str]:
    """The Triton kernels, or the definitions where Triton or the kernels are not installed."""
    try:
        from streamgen_kernels import adaln, flow_step, kv_quantise, pixels, rope_kv_write
    except ImportError as error:
        return PLAIN, f"no kernels: {error}"
    operations = Operations(
        name="triton",
        attention=PLAIN.attention,
        norm_modulate=adaln.norm_modulate,
        gated_residual=adaln.gated_residual,
        rms_norm=PLAIN.rms_norm,
        rotate=rope_kv_write.rotate,
        norm_rotate_write=rope_kv_write.norm_rotate_write,
        flow_step=flow_step.flow_step,
        quantise=kv_quantise.quantise,
        dequantise=kv_quantise.dequantise,
        dequantise_rotate=kv_quantise.dequantise_rotate,
        to_signed=pixels.to_signed,
        to_bytes=pixels.to_bytes,
    )
    return operations, "Triton kernels on a GPU"


def check_fp8(device: torch.device, setting: str) -> None:
    """Raise ConfigError where a GPU cannot compute with e4m3; a CPU can, slowly."""
    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        major, minor = capability
        raise ConfigError(
            f"{setting} needs a GPU of compute capability 8.9 (Ada, Hopper) or above, this one has "
            f'{major}.{minor}; use "int8"'
        )


def free_bytes(device: torch.device) -> int | None:
    """Memory that a device has left for this process; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _meminfo_bytes("MemAvailable")
    within = _cgroup_bytes()
    known = [number for number in (free, within) if number is not None]
    return min(known) if known else None


def _meminfo_bytes(key: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith(f"{key}:")), None)
    return None if kilobytes is None else int(kilobytes) * 1024


def _cgroup_bytes() -> int | None:
    """What the container's limit leaves; file pages that can be given back count as free."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text(encoding="ascii").strip()
        used = int((root / "memory.current").read_text(encoding="ascii"))
        stat = (root / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    idle = next((int(line.split()[1]) for line in stat if line.startswith("inactive_file ")), 0)
    return None if limit == "max" else max(0, int(limit) - used + idle)


def _fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs; float32 on CPUs, most of which only emulate bfloat16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def use_threads(count: int) -> None:
    """Let whatever this thread runs on the CPU take so many threads."""
    torch.set_num_threads(count)


def computed_aside(compute: Callable[[], Tensor], device: torch.device) -> Tensor:
    """A tensor whose making runs beside what else a GPU does; it is done when this returns."""
    if device.type != "cuda":
        return compute()
    current, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        result = compute()
    aside.synchronize()
    result.record_stream(current)
    return result


def num_cores() -> int:
    """Cores that this process may use; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no memory left for what it was asked to do.

    On a CPU torch raises a plain RuntimeError that names its allocator.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
