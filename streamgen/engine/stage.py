"""One forward: latents in, prediction out, through this rank's blocks and its cache.

Legend: B rows, F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from streamgen.cache.kv import CachePlan, KVCache
from streamgen.cache.recent import Recent
from streamgen.cache.residuals import Residuals
from streamgen.engine.batch import Row
from streamgen.engine.forward import AsWritten, ForwardRunner, StageInputs
from streamgen.engine.prompts import PromptBank
from streamgen.models.base import CausalDiT, Conditioning
from streamgen.models.wan.lora import LoraSet
from streamgen.ops.transfer import to_device
from streamgen.types import PromptId

NUM_CONDITIONS = 64  # kept; more than any ladder has, few enough for the noise levels of video


class Stage:
    """A range of a model's blocks over its KV cache and its prompts; the whole model by default."""

    def __init__(
        self,
        model: CausalDiT,
        cache: KVCache,
        *,
        device: torch.device,
        blocks: range | None = None,
        loras: LoraSet | None = None,
        runner: ForwardRunner | None = None,
        residuals: Residuals | None = None,
    ) -> None:
        """`blocks` of the model are run here, and `cache` has a layer for each of them; `runner`
        says how a forward is carried out: as it is written if left out. `residuals` are for rows
        that reuse what blocks added at the step before."""
        self.model = model
        self.cache = cache
        self.blocks = range(model.facts.num_blocks) if blocks is None else blocks
        assert len(self.blocks) == cache.shape.num_layers, "the cache is of another stage"
        self.prompts = PromptBank(model, self.blocks)
        self._device = device
        self._loras = loras
        self._runner = runner or AsWritten()
        self._residuals = residuals
        self._conditions: Recent[tuple[tuple[float, ...], ...], Conditioning]
        self._conditions = Recent(NUM_CONDITIONS)

    def forward(self, rows: Sequence[Row], incoming: Tensor) -> Tensor:
        """Run rows that all have the same number of latent frames and effort through this stage.

        `incoming` are latents BFCHW, condition channels behind the noisy ones, at the first stage,
        and tokens BLD at others. What comes out are tokens, and at the last stage what the model
        predicts, BFCHW: a velocity or clean latents, as the model's facts say. A reduced context
        pass predicts nothing; its incoming latents come back.
        """
        plan = self.cache.prepare([row.cache_row for row in rows], [row.placement for row in rows])
        inputs = StageInputs(incoming, self._condition(rows), plan, rows[0].effort)
        return self._runner.run(self._on_device, inputs)

    def _on_device(self, inputs: StageInputs) -> Tensor:
        """What depends on tensors alone: it may be recorded, and replayed."""
        model, cond, plan = self.model, inputs.cond, inputs.plan
        incoming = inputs.incoming
        hidden_BLD = model.embed(incoming) if self.blocks.start == 0 else incoming
        effort = inputs.effort
        before_BLD = hidden_BLD
        for layer, index in enumerate(self.blocks):
            if index >= effort.stop:
                return incoming[:, :, : model.facts.latent_channels]
            if effort.reuses and effort.first <= index < effort.last:
                if index == effort.first:
                    hidden_BLD = hidden_BLD + self._kept(plan, hidden_BLD.shape[1])
                continue
            if index == effort.first:
                before_BLD = hidden_BLD
            hidden_BLD = model.block(index, hidden_BLD, cond, self.cache.layer(layer, plan))
            if effort.has_kept and not effort.reuses and index == effort.last - 1:
                self._keep(plan, hidden_BLD - before_BLD)
        if self.blocks.stop < model.facts.num_blocks:
            return hidden_BLD
        return model.head(hidden_BLD, cond, self.cache.shape.grid)

    def share(self, rows: Sequence[Row]) -> None:
        """After their forward: give other cache rows what these are to share with them."""
        for row in rows:
            others = tuple(target for target in row.shared_rows if target != row.cache_row)
            if others:
                self.cache.copy_cells(row.cache_row, others, row.shared_cells)

    def _kept(self, plan: CachePlan, num_tokens: int) -> Tensor:
        assert self._residuals is not None, "nothing was kept here"
        return self._residuals.read(plan.rows_B1, num_tokens)

    def _keep(self, plan: CachePlan, sum_BLD: Tensor) -> None:
        assert self._residuals is not None, "there is no room to keep anything"
        self._residuals.keep(plan.rows_B1, sum_BLD)

    def succeeded_by(
        self, model: CausalDiT, cache: KVCache, blocks: range, loras: LoraSet | None
    ) -> Stage:
        """A stage of other blocks that goes on with the same prompts and scales of LoRAs."""
        assert isinstance(self._runner, AsWritten), "recordings are of one stage's tensors"
        if loras is not None and self._loras is not None:
            loras.apply(self._loras.scales)
        other = Stage(model, cache, device=self._device, blocks=blocks, loras=loras)
        other.prompts.take_over(self.prompts)
        return other

    def scale_loras(self, scales: Mapping[str, float]) -> None:
        """Merge LoRAs at other scales; prompts' keys and values follow."""
        assert self._loras is not None, "there are no LoRAs to scale"
        self._loras.apply(scales)
        self.prompts.refresh()
        self._conditions.clear()

    def _condition(self, rows: Sequence[Row]) -> Conditioning:
        """The time embedding of a ladder's few timesteps is computed once and kept."""
        timesteps = tuple(
            tuple(part.level.timestep for part in row.parts for _ in range(part.chunk_frames))
            for row in rows
        )
        text = self.prompts.gather(_prompts(rows))
        known = self._conditions.get(timesteps)
        if known is None:
            timesteps_BF = to_device(torch.tensor(timesteps), self._device)
            known = self.model.condition(timesteps_BF, ())
            self._conditions.put(timesteps, known)
        return replace(known, text=text)


def _prompts(rows: Sequence[Row]) -> list[PromptId]:
    """The prompt of each row; where chunks of one row follow different ones, of each of as many
    equal parts of every row as it takes."""
    if all(part.prompt == row.prompt for row in rows for part in row.younger):
        return [row.prompt for row in rows]
    parts = [part for row in rows for part in row.parts]
    size = math.gcd(*(part.chunk_frames for part in parts))
    return [part.prompt for part in parts for _ in range(part.chunk_frames // size)]
