"""One rank's part of a model: blocks, and a cache for them. Settings only pass through here."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from streamgen.cache.adaptive import AdaptiveSinks
from streamgen.cache.kv import CacheShape, KVCache
from streamgen.config.schema import StreamConfig
from streamgen.engine.executor import Executor
from streamgen.engine.recipe import Recipe
from streamgen.engine.stage import Stage
from streamgen.errors import CapacityError, CheckpointError
from streamgen.models.base import CausalDiT, DiTFacts, VideoCodec
from streamgen.models.registry import load_bundle
from streamgen.models.wan.bundle import load_wan_dit
from streamgen.models.wan.lora import LoraSet
from streamgen.ops.backend import Backend, check_fp8
from streamgen.ops.quantise import KVFormat
from streamgen.ops.rope import TokenGrid
from streamgen.serving.model_files import wan_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a rank builds its stage from; goes to other processes."""

    config: StreamConfig
    recipe: Recipe
    facts: DiTFacts
    latent_height: int
    latent_width: int


class Elsewhere(Protocol):
    """Other processes that run the blocks."""

    def make_executor(self, plan: StagePlan, backend: Backend) -> Executor:
        """Start them; raises ConfigError or CheckpointError if one could not work."""
        ...

    def decode_device(self, backend: Backend) -> torch.device:
        """Where this process is to decode, of all GPUs that it sees."""
        ...


def copied_to(codec: VideoCodec[Any], device: torch.device) -> VideoCodec[Any]:
    """A second copy of a codec, for the way that another device goes."""
    assert isinstance(codec, torch.nn.Module)
    moved: Any = copy.deepcopy(codec).to(device)
    return moved


def build_stage(plan: StagePlan, backend: Backend, blocks: range, num_rows: int) -> Stage:
    """Load some blocks of the DiT, and nothing else, with a cache of so many rows of their own.

    Raises as `build_pipeline` does.
    """
    dit, loras = load_blocks(plan, backend, blocks)
    grid = dit.grid(plan.latent_height, plan.latent_width)
    kind = KVFormat(plan.config.cache.dtype)
    cache = make_cache(dit.facts, plan.recipe, backend, grid, num_rows, blocks, kind)
    return Stage(dit, cache, device=backend.device, blocks=blocks, loras=loras)


def load_blocks(
    plan: StagePlan, backend: Backend, blocks: range
) -> tuple[CausalDiT, LoraSet | None]:
    """Some blocks of the DiT, with its LoRAs; raises as `build_pipeline` does."""
    config = plan.config
    device, dtype = backend.device, backend.dtype
    dit: CausalDiT
    loras = None
    if config.wan is None:
        dit = load_bundle(
            config.family, config.model.weights, device=device, dtype=dtype, blocks=blocks
        ).dit
    else:
        files = wan_files(config.model, config.wan)
        dit, loras = load_wan_dit(files, device=device, dtype=dtype, blocks=blocks)
    dit.use(backend.operations)
    return dit, loras


def check_files(plan: StagePlan) -> None:
    """CheckpointError if this machine lacks a file that `build_stage` reads; reads none."""
    model = plan.config.model
    if plan.config.wan is not None:
        wan_files(model, plan.config.wan)
    elif model.weights != "package" and not Path(model.weights).expanduser().exists():
        raise CheckpointError(f"{model.weights} is not there; copy it to every machine")


def make_cache(
    facts: DiTFacts,
    recipe: Recipe,
    backend: Backend,
    grid: TokenGrid,
    num_rows: int,
    blocks: range,
    kind: KVFormat,
    num_past: Sequence[int] | None = None,
) -> KVCache:
    """ConfigError for a format that the hardware does not know, CapacityError if it is full."""
    if kind is KVFormat.FP8:
        check_fp8(backend.device, 'cache.dtype = "fp8"')
    shape = CacheShape(
        num_layers=len(blocks),
        num_rows=num_rows,
        num_cells=recipe.sinks + recipe.ring,
        num_heads=facts.num_heads,
        head_dim=facts.head_dim,
        grid=grid,
    )
    size_gb = shape.size_bytes(backend.dtype, kind) / 1e9
    logger.info("KV cache: %d rows, %s, %.3f GB", num_rows, kind.value, size_gb)
    try:
        return KVCache(
            shape,
            recipe.positions,
            device=backend.device,
            dtype=backend.dtype,
            operations=backend.operations,
            moves_sinks=recipe.cache.moves_sinks,
            adaptive=_adaptive_sinks(recipe, shape, backend),
            kind=kind,
            num_past=num_past,
        )
    except (MemoryError, RuntimeError) as error:
        raise CapacityError(
            f"the KV cache needs {size_gb:.1f} GB for {num_rows} rows and there is not so much; "
            f"lower engine.sessions or cache.ring, or set cache.dtype"
        ) from error


def _adaptive_sinks(recipe: Recipe, shape: CacheShape, backend: Backend) -> AdaptiveSinks | None:
    if recipe.cache.sink_threshold is None:
        return None
    return AdaptiveSinks(
        sinks=recipe.sinks,
        ring=recipe.ring,
        threshold=recipe.cache.sink_threshold,
        num_layers=shape.num_layers,
        num_rows=shape.num_rows,
        device=backend.device,
    )
