"""Compiling blocks and recording forwards: what is settled at start, before the first tick.

The one module of the engine that speaks of CUDA.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from streamgen.errors import ConfigError
from streamgen.models.base import CausalDiT, VideoCodec

logger = logging.getLogger(__name__)

CodecTool = Literal["auto", "inductor", "tensorrt"]

WARM_UP_CALLS = 3  # before a capture: libraries choose their algorithms and allocate workspaces


class CudaRecorder:
    """Records into CUDA graphs that share one pool of memory: they are never replayed at once."""

    def __init__(self) -> None:
        self._pool: Any = None

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Capture; the function has no effect that is lost or harmful when it is called again.

        Another thread may use the GPU meanwhile: one that encodes a prompt.
        """
        cuda_stream = torch.cuda.Stream()
        cuda_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(cuda_stream):
            for _ in range(WARM_UP_CALLS):
                function()
        torch.cuda.current_stream().wait_stream(cuda_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
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


def compile_codec(codec: VideoCodec[Any], device: torch.device, *, tool: CodecTool) -> None:
    """Let inductor or TensorRT compile the codec's decoder when it first runs.

    "auto" is TensorRT on a GPU where torch-tensorrt is installed, else inductor, and says why. A
    decoder that is a sequence of layers with memories between them is compiled layer by layer.
    Raises ConfigError for a tool that is not there.
    """
    if not isinstance(codec, nn.Module) or not hasattr(codec, "decoder"):
        raise ConfigError('this codec has nothing to compile; set speed.codec = "plain"')
    if tool == "auto":
        missing = missing_tensorrt(device)
        tool = "tensorrt" if missing is None else "inductor"
        logger.info("codec: %s%s", tool, "" if missing is None else f" ({missing})")
    elif tool == "tensorrt" and (missing := missing_tensorrt(device)) is not None:
        raise ConfigError(f'{missing}; set speed.codec = "auto" or "inductor"')
    decoder = codec.get_submodule("decoder")
    layers = list(decoder) if isinstance(decoder, nn.Sequential) else [decoder]
    if tool == "tensorrt":
        precision = next(decoder.parameters()).dtype
        for layer in _with_weights(layers):
            options = {"enabled_precisions": {precision}}
            layer.compile(backend="torch_tensorrt", dynamic=False, options=options)
        return
    _check_compiler()
    for layer in _with_weights(layers):
        layer.compile(dynamic=False)


def missing_tensorrt(device: torch.device) -> str | None:
    """Why the codec cannot go through TensorRT; None if it can.

    torch-tensorrt is made for one minor version of torch and is installed by hand (docs/speed.md).
    """
    if device.type != "cuda":
        return f"TensorRT runs on a GPU, and this is a {device.type}"
    ours = ".".join(torch.__version__.split(".")[:2])
    try:
        torch_tensorrt: Any = importlib.import_module("torch_tensorrt")
    except (ImportError, OSError) as error:
        return f"torch-tensorrt {ours}.x cannot be imported ({error})"
    theirs = ".".join(str(torch_tensorrt.__version__).split(".")[:2])
    if theirs != ours:
        return f"torch-tensorrt {theirs} is for torch {theirs}, and this is torch {ours}"
    return None


def _with_weights(layers: Iterable[nn.Module]) -> list[nn.Module]:
    return [layer for layer in layers if any(True for _ in layer.parameters())]


def _check_compiler() -> None:
    """Inductor writes C++ for CPUs and needs a compiler; better to know at start."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # inductor's own error, of a class that moves between versions
        raise ConfigError(
            f"speed.compile needs a C++ compiler ({error}); install gcc or set it to false"
        ) from None
