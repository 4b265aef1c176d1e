"""One forward: latents in, prediction out, through this rank's blocks and its cache.

Legend: B rows, F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from streamgen.cache.kv import KVCache
from streamgen.engine.batch import Row
from streamgen.engine.prompts import PromptBank
from streamgen.models.base import CausalDiT


class Stage:
    """A model over its KV cache and its prompts."""

    def __init__(self, model: CausalDiT, cache: KVCache, *, device: torch.device) -> None:
        self.model = model
        self.cache = cache
        self.prompts = PromptBank(model)
        self._device = device

    def forward(self, rows: Sequence[Row], latents_BFCHW: Tensor) -> Tensor:
        """What the model predicts for rows that all have the same number of latent frames.

        `latents_BFCHW` holds condition channels behind the noisy ones; the result, BFCHW, is a
        velocity or clean latents, as the model's facts say.
        """
        model = self.model
        plan = self.cache.prepare([row.cache_row for row in rows], [row.placement for row in rows])
        timesteps_BF = torch.tensor([[row.level.timestep] * row.num_frames for row in rows])
        cond = model.condition(
            timesteps_BF.to(self._device, non_blocking=True),
            self.prompts.gather([row.prompt for row in rows]),
        )
        hidden_BLD = model.embed(latents_BFCHW)
        for index in range(model.facts.num_blocks):
            hidden_BLD = model.block(index, hidden_BLD, cond, self.cache.layer(index, plan))
        return model.head(hidden_BLD, cond, self.cache.shape.grid)
