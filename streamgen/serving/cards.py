"""What a preset takes, here and on cards that people have, and what makes it fit. Arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from streamgen.config.schema import StreamConfig
from streamgen.ops.backend import Backend, choose_backend, free_bytes
from streamgen.serving.build import memory_needed
from streamgen.serving.memory import Memory, changed, fitting_changes
from streamgen.serving.model_files import wan_parts

CARD_GB = (8, 12, 16, 24, 32, 48, 80)  # as they are sold: GiB
KEPT_BYTES = 2**29  # by driver and desktop (estimate)


@dataclass(frozen=True, slots=True)
class CardFit:
    """A preset on one size of card."""

    card_gb: int
    settings: tuple[str, ...] | None
    """What must be set, as "section.key=value"; empty: nothing; None: nothing makes it fit."""
    memory: Memory | None
    """With these settings; None where it does not fit."""


def fits_on_cards(config: StreamConfig) -> tuple[CardFit, ...]:
    """The mildest settings for each size of card, in bfloat16. Errors as `wan_parts`."""
    assert config.wan is not None
    parts = wan_parts(config.model, config.wan)
    gpu = Backend(torch.device("cuda"), torch.bfloat16)

    def estimate(settings: StreamConfig) -> Memory:
        return memory_needed(settings, gpu, parts)

    def fit(card_gb: int) -> CardFit:
        free_bytes = card_gb * 2**30 - KEPT_BYTES
        if (memory := estimate(config)).device_bytes <= free_bytes:
            return CardFit(card_gb, (), memory)
        found = fitting_changes(config, estimate, free_bytes)
        if not found:
            return CardFit(card_gb, None, None)
        settings = tuple(text for change in found for text in change.texts)
        return CardFit(card_gb, settings, estimate(changed(config, found)))

    return tuple(fit(card_gb) for card_gb in CARD_GB)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a preset takes on a GPU, and whether it fits into what this machine has free."""

    on_gpu: Memory
    here: Memory
    free_bytes: int | None
    device: str

    @property
    def fits(self) -> bool:
        return self.free_bytes is None or self.here.device_bytes <= self.free_bytes


def fit_of(config: StreamConfig) -> Fit:
    """How a Wan preset would fit; nothing is loaded. Errors as `wan_parts`."""
    backend = choose_backend(config.model.device, config.model.dtype, config.model.num_threads)
    gpu = Backend(torch.device("cuda"), torch.bfloat16)
    return Fit(
        on_gpu=memory_needed(config, gpu),
        here=memory_needed(config, backend),
        free_bytes=free_bytes(backend.device),
        device=str(backend.device),
    )
