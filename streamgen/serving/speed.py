"""From the [speed] section to what a pipeline runs on: settled once, and logged."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from streamgen.cache.residuals import Residuals
from streamgen.clock import Clock
from streamgen.config.speed import CodecChoice, SpeedConfig
from streamgen.engine.compile import CudaRecorder, compile_blocks, compile_codec
from streamgen.engine.cuda_lanes import CudaInOrder, CudaLanes
from streamgen.engine.effort import ALL_BLOCKS, Savings
from streamgen.engine.forward import AsWritten, ForwardRunner, Replayed
from streamgen.engine.host_recorder import HostRecorder
from streamgen.engine.lanes import InOrder, Lanes
from streamgen.engine.recipe import Recipe
from streamgen.errors import ConfigError
from streamgen.models.base import CausalDiT, DiTFacts
from streamgen.models.bundle import ModelBundle
from streamgen.models.heads import order_heads, read_heads
from streamgen.models.linear_layout import lay_out_for_few_rows
from streamgen.models.quantised import Linears, quantise_linears
from streamgen.models.tiny.header import PACKAGE_HEADS
from streamgen.ops.attention_backends import AttentionShape, try_attentions
from streamgen.ops.backend import Backend, check_fp8
from streamgen.ops.few_calls import FEW_CALLS
from streamgen.ops.operations import Operations
from streamgen.ops.rope import TokenGrid

logger = logging.getLogger(__name__)

SEEN_BEFORE_LISTING = 8  # a list of calls takes a tenth of a second to make: none for a window that
#                          fills, which has each length for the passes of one chunk


def settle_model(
    bundle: ModelBundle,
    device: torch.device,
    *,
    linears: str,
    compiles: bool,
    codec: CodecChoice = "auto",
) -> None:
    """Quantise what was asked for, where it lies, and put it on its device; compile.

    Raises ConfigError for settings that exclude each other or need what is not there.
    """
    kind = Linears(linears)
    if kind is Linears.FP8:
        check_fp8(device, 'speed.linears = "fp8"')
    if kind is not Linears.FULL and bundle.loras is not None:
        raise ConfigError(
            f'speed.linears = "{linears}" keeps no weights that a LoRA could be merged into; '
            f'set it to "full" or take the LoRAs away'
        )
    count = quantise_linears(bundle.dit, kind)
    if count:
        logger.info("linears: %d in %s", count, kind.value)
    if count and isinstance(bundle.dit, nn.Module):
        bundle.dit.to(device)
    if compiles:
        compile_blocks(bundle.dit)
    if codec == "auto" and compiles and hasattr(bundle.codec, "decoder"):
        compile_codec(bundle.codec, device, tool="auto")
    elif codec in ("inductor", "tensorrt"):
        compile_codec(bundle.codec, device, tool=codec)


def settle_heads(bundle: ModelBundle, named: str, family: str) -> tuple[int, ...] | None:
    """Put the DiT's heads in the order of a file ("package": the one beside the tiny weights), and
    say how many of each block see the past; None if no file is named.

    Raises CheckpointError for a file of another model, ConfigError where LoRAs are merged: they
    name channels in the order of the checkpoint.
    """
    if not named:
        return None
    if bundle.loras is not None:
        raise ConfigError(
            'speed.heads puts heads in another order than LoRAs know; set it to "" or take the '
            "LoRAs away"
        )
    if named == "package" and family != "tiny":
        raise ConfigError(
            f'speed.heads = "package" is of the tiny model, family is "{family}"; name a file of '
            f"scripts/calibrate_heads.py"
        )
    path = PACKAGE_HEADS if named == "package" else Path(named).expanduser()
    heads = read_heads(path, bundle.dit.facts)
    order_heads(bundle.dit, heads)
    count = sum(len(block) for block in heads.by_block)
    logger.info(
        "heads: %d of %d see their own chunk only", count, heads.num_heads * len(heads.by_block)
    )
    return heads.num_past


def savings_of(speed: SpeedConfig, num_blocks: int) -> Savings:
    """ConfigError if blocks are named that the model does not have."""
    blocks = (0, 0)
    if speed.reuse_blocks:
        first, last = speed.reuse_blocks
        if last >= num_blocks:
            raise ConfigError(
                f"speed.reuse_blocks = [{first}, {last}] are not blocks of this model, which has "
                f"{num_blocks}; use 0 to {num_blocks - 1}"
            )
        blocks = (first, last + 1)
    clean_blocks = ALL_BLOCKS if speed.clean_share == 1 else round(speed.clean_share * num_blocks)
    return Savings(clean_blocks, speed.reuse_steps, blocks)


def make_residuals(
    recipe: Recipe, facts: DiTFacts, backend: Backend, grid: TokenGrid, num_rows: int
) -> Residuals | None:
    """Room for what blocks added at the step before; None if nothing is reused."""
    if not recipe.savings.reuse_steps:
        return None
    return Residuals(
        num_rows=num_rows,
        num_tokens=recipe.chunk_frames * grid.num_tokens,
        dim=facts.num_heads * facts.head_dim,
        device=backend.device,
        dtype=backend.dtype,
    )


def attention_shape(recipe: Recipe, facts: DiTFacts, grid: TokenGrid) -> AttentionShape:
    """Of a full window, with the rows that one session has in a forward."""
    return AttentionShape(
        rows=recipe.rows_in_flight,
        query_tokens=recipe.row_frames * grid.num_tokens,
        key_tokens=(recipe.sinks + recipe.ring) * grid.num_tokens,
        num_heads=facts.num_heads,
        head_dim=facts.head_dim,
    )


def settle_operations(
    backend: Backend, shape: AttentionShape, clock: Clock, *, tries: bool
) -> Operations:
    """The backend's operations, with the fastest attention for this shape if `tries`."""
    if not tries or backend.device.type == "cpu":
        return backend.operations
    attend, trials = try_attentions(
        shape,
        device=backend.device,
        dtype=backend.dtype,
        clock=clock,
        synchronise=backend.synchronise,
    )
    for trial in trials:
        took = "-" if trial.seconds is None else f"{1e3 * trial.seconds:.3f} ms"
        logger.info("attention: %s %s %s", trial.name, took, trial.reason or "")
    return replace(backend.operations, attention=attend)


def settle_lanes(backend: Backend, clock: Clock, *, overlaps: bool) -> Lanes:
    """Codec and copies beside the denoising, where the device can do that, if `overlaps`."""
    if backend.device.type == "cpu":
        return InOrder(clock)
    lanes = CudaLanes(backend.device) if overlaps else CudaInOrder(backend.device)
    logger.info("lanes: %s", "CUDA streams" if overlaps else "one CUDA stream")
    return lanes


def settle_runner(backend: Backend, *, records: bool, is_small: bool) -> ForwardRunner:
    """CUDA graphs on a GPU and lists of calls for a small model on a CPU, if `records`."""
    if not records or not (backend.device.type == "cuda" or is_small):
        return AsWritten()
    on_cpu = backend.device.type == "cpu"
    told = "lists of calls" if on_cpu else "CUDA graphs"
    logger.info("graphs: %s for forwards that come again", told)
    if on_cpu:
        return Replayed(HostRecorder(), seen_before=SEEN_BEFORE_LISTING)
    return Replayed(CudaRecorder())


def settle_weights(dit: CausalDiT, backend: Backend) -> None:
    """Lay a small model's weights out as products of few rows like them, where operations are in
    few calls: in float32 on a CPU."""
    if backend.operations.name == FEW_CALLS.name:
        logger.info("weights: %d linears laid out for few rows", lay_out_for_few_rows(dit))
