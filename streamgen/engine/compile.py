"""Compiling blocks and recording forwards: what is settled at start, before the first tick.

The one module of the engine that speaks of CUDA.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamgen.errors import ConfigError
from streamgen.models.base import CausalDiT, VideoCodec

logger = logging.getLogger(__name__)

WARM_UP_CALLS = 3  # before a capture: libraries choose their algorithms and allocate workspaces


class CudaRecorder:
    """Records into CUDA graphs that share one pool of memory: they are never replayed at once."""

    def __init__(self) -> None:
        self._pool: Any = None

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Capture; the function has no effect that is lost or harmful when it is called again."""
        cuda_stream = torch.cuda.Stream()
        cuda_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(cuda_stream):
            for _ in range(WARM_UP_CALLS):
                function()
        torch.cuda.current_stream().wait_stream(cuda_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = function()
        self._pool = graph.pool()
        return graph.replay, result


def compile_cache_folder() -> Path:
    """Where compiled code is kept between starts of the program."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "streamgen" / "compiled"


def compile_blocks(dit: CausalDiT) -> None:
    """Let inductor compile a DiT's blocks when they first run; all share one piece of code.

    What was compiled is kept on disk. Raises ConfigError where no compiler is found.
    """
    assert isinstance(dit, nn.Module), "there is nothing to compile"
    _check_compiler()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compile_cache_folder()))
    blocks = dit.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        block.compile(dynamic=False)
    logger.info("compile: %d blocks, kept in %s", len(blocks), compile_cache_folder())


def compile_decoder(codec: VideoCodec[Any]) -> None:
    """Let inductor compile the codec's decoder when it first runs."""
    assert isinstance(codec, nn.Module), "there is nothing to compile"
    _check_compiler()
    codec.get_submodule("decoder").compile(dynamic=False)


def compile_with_tensorrt(module: nn.Module, example: Tensor) -> nn.Module:
    """A module as a TensorRT engine, through torch-tensorrt.

    Raises ConfigError where it is not installed, or was made for another minor version of torch.
    """
    try:
        torch_tensorrt: Any = importlib.import_module("torch_tensorrt")
    except (ImportError, OSError) as error:
        ours = ".".join(torch.__version__.split(".")[:2])
        raise ConfigError(
            f"torch-tensorrt cannot be imported ({error}); install the {ours}.x that goes with "
            f"torch {ours}, or compile the codec with inductor"
        ) from None
    return torch_tensorrt.compile(
        module, ir="dynamo", inputs=[example], enabled_precisions={example.dtype}
    )


def _check_compiler() -> None:
    """Inductor writes C++ for CPUs and needs a compiler; better to know at start."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # inductor's own error, of a class that moves between versions
        raise ConfigError(
            f"speed.compile needs a C++ compiler ({error}); install gcc or set it to false"
        ) from None
