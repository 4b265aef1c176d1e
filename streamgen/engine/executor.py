"""What carries a batch through the model. The local one runs it in this process, at once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from streamgen.engine.batch import (
    Batch,
    CellsCopied,
    Completed,
    Control,
    LorasScaled,
    Payload,
    PromptDropped,
    Row,
    SlotKey,
    SlotsDropped,
    Timing,
)
from streamgen.engine.effort import Effort
from streamgen.engine.lanes import Lanes, Stretch
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage


class Executor(Protocol):
    """Takes batches in order and gives them back in order."""

    @property
    def stages(self) -> int:
        """Batches that can be in flight at once."""
        ...

    @property
    def in_flight(self) -> int: ...

    def submit(self, batch: Batch, payload: Payload) -> None:
        """Begin a batch; only while `in_flight < stages`."""
        ...

    def collect(self) -> Completed:
        """The oldest batch in flight, waiting for it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A batch that the device may still be busy with."""

    batch: Batch
    denoising: Stretch


class LocalExecutor:
    """The whole model on one device, one batch at a time."""

    stages = 1

    def __init__(self, stage: Stage, slots: DenoiseSlots, lanes: Lanes) -> None:
        self._stage = stage
        self._slots = slots
        self._lanes = lanes
        self._completed: deque[Completed] = deque()
        self._running: deque[Running] = deque()

    @property
    def in_flight(self) -> int:
        return len(self._completed)

    @torch.inference_mode()
    def submit(self, batch: Batch, payload: Payload) -> None:
        assert self.in_flight < self.stages
        with self._lanes.timed() as denoising:
            for prompt, text_MD in payload.prompts.items():
                self._stage.prompts.add(prompt, text_MD)
            for control in batch.controls:
                self._apply(control)
            for key, started in payload.started.items():
                self._slots.admit(key, started)
            finished: dict[SlotKey, Tensor] = {}
            for rows in equal_shapes(batch.rows):
                predicted_BFCHW = self._stage.forward(rows, self._slots.inputs(rows))
                self._stage.share(rows)
                finished |= self._slots.advance(rows, predicted_BFCHW)
        self._completed.append(Completed(batch, finished))
        self._running.append(Running(batch, denoising))

    def collect(self) -> Completed:
        """The batch whose work has been asked for. A device that works by itself may still be at
        it, and at no other: so the host is never more than one batch ahead."""
        timings: list[Timing] = []
        while self._running:
            oldest = self._running[0]
            if len(self._running) > 1:
                oldest.denoising.wait()
            seconds = oldest.denoising.seconds()
            if seconds is None:
                break
            self._running.popleft()
            if oldest.batch.rows:
                timings.append(oldest.batch.timing(seconds))
        return replace(self._completed.popleft(), timings=tuple(timings))

    def _apply(self, control: Control) -> None:
        match control:
            case CellsCopied(source, targets, cells, to_cells):
                self._stage.cache.copy_cells(source, targets, cells, to_cells)
            case SlotsDropped(session):
                self._slots.drop_session(session)
            case PromptDropped(prompt):
                self._stage.prompts.drop(prompt)
            case LorasScaled(scales):
                self._stage.scale_loras(dict(scales))


def equal_shapes(rows: tuple[Row, ...]) -> list[tuple[Row, ...]]:
    """Split rows into groups of as many latent frames and equal effort, ordered by cache row
    inside each.

    Preludes come first: they write what the other rows of their sessions read.
    """

    def shape(row: Row) -> tuple[bool, int, Effort]:
        return not row.recalls, row.num_frames, row.effort

    return [
        tuple(sorted((r for r in rows if shape(r) == group), key=lambda r: r.cache_row))
        for group in sorted({shape(row) for row in rows})
    ]
