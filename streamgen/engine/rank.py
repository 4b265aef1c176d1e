"""What one rank of a pipeline does with a batch: its rows, its blocks, its cache.

All ranks that see latents keep all latents in flight and take every step with them: only
predictions travel, and what guidance, re-caching or a ladder make of them is computed alike
everywhere. So nothing that is decided once has to be said twice.

Legend: B rows, F latent frames, C channels, H W latent height and width, L tokens, D model dim,
R layers, G cells, S tokens of a latent frame, N heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from streamgen.clock import Clock
from streamgen.engine.batch import (
    Batch,
    CellsCopied,
    Control,
    LorasScaled,
    PromptDropped,
    Row,
    SlotKey,
    SlotsDropped,
    Started,
)
from streamgen.engine.executor import equal_shapes
from streamgen.engine.moving import Divide, NextBlocks, common
from streamgen.engine.rank_rows import RankRows
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage
from streamgen.parallel.member import Member
from streamgen.parallel.partition import Layout
from streamgen.parallel.ring import Arrival, Channel, Ring
from streamgen.types import PromptId


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A batch as it travels: the same for all ranks, but that tensors go where they are used."""

    batch: Batch
    prompts: Mapping[PromptId, Tensor] = field(default_factory=dict[PromptId, Tensor])
    started: Mapping[SlotKey, Started] = field(default_factory=dict[SlotKey, Started])
    layout: Layout | None = None
    """Who has which blocks from this batch on, where that changes."""


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A rank is through with a batch."""

    tick: int
    finished: Mapping[SlotKey, Tensor]
    """Clean latents, from the last rank of the group that took the last step."""
    seconds: float
    """Of its own work, waiting for neighbours left out."""


@dataclass(slots=True, eq=False)
class Due:
    """A prediction of another rank, on its way here."""

    tick: int
    rows: tuple[Row, ...]
    arrival: Arrival


class RankStage:
    """One rank's part of every batch. Owns latents in flight where it sees them."""

    def __init__(
        self,
        rank: int,
        layout: Layout,
        stage: Stage,
        slots: DenoiseSlots,
        ring: Ring,
        clock: Clock,
        *,
        latent_shape: tuple[int, int, int],
        next_blocks: NextBlocks | None = None,
    ) -> None:
        """`latent_shape` is [C, h, w] of what the model predicts; `next_blocks` has the model of a
        layout that is named later, where blocks can move at all."""
        self.rank = rank
        self.layout = layout
        self._group_index, self._stage_index = layout.place(rank)
        self._group = layout.groups[self._group_index]
        self._stage = stage
        self._slots = slots
        self._ring = ring
        self._clock = clock
        self._latent_shape = latent_shape
        self._rows = RankRows(rank, layout, stage.cache, ring)
        self._due: list[Due] = []
        self._waited_s = 0.0
        self._next_blocks = next_blocks

    @property
    def _sees_latents(self) -> bool:
        return self.rank in self._group.ends

    @torch.inference_mode()
    def run(self, work: Work) -> Done:
        """Do this rank's part of a batch; batches come in the order of their ticks."""
        if work.layout is not None:
            self._move_to(work.layout)
        began_s = self._clock.now()
        self._waited_s = 0.0
        batch = work.batch
        self._settle_until(batch.tick - self.layout.num_stages)
        for prompt, text_MD in work.prompts.items():
            self._stage.prompts.add(prompt, text_MD.to(self._ring.device, self._ring.dtype))
        for control in batch.controls:
            self._apply(control)
        for key, started in work.started.items():
            self._slots.admit(key, _on_device(started, self._ring))
        self._rows.see(batch.rows)
        by_group = [self._rows_of(group, batch.rows) for group in range(len(self.layout.groups))]
        self._expect(batch.tick, by_group)
        finished = self._forward(batch.tick, by_group[self._group_index])
        self._synchronize()
        return Done(batch.tick, finished, self._clock.now() - began_s - self._waited_s)

    def load(self, layout: Layout) -> None:
        """Begin to load the blocks of a layout that will be named with a batch."""
        assert self._next_blocks is not None, "blocks of this rank cannot move"
        self._next_blocks.begin(self.layout, layout)

    def _move_to(self, layout: Layout) -> None:
        """Give layers of the cache away, take others in, and go on with the model for them."""
        before, mine = self.layout, layout.blocks(self.rank)
        cache, own = self._stage.cache, before.blocks(self.rank)
        self._rows.settle_all()
        for rank in self._group.ranks:
            going = common(own, layout.blocks(rank))
            if rank != self.rank and going:
                layers = slice(going.start - own.start, going.stop - own.start)
                self._ring.send_once(cache.read_layers(layers), rank, Channel.MOVED)
        parts: list[slice | Tensor] = []
        for rank in self._group.ranks:  # in the order of their blocks
            coming = common(before.blocks(rank), mine)
            if not coming:
                continue
            if rank == self.rank:
                parts.append(slice(coming.start - own.start, coming.stop - own.start))
            else:
                shape = cache.shape.layers(len(coming))
                parts.append(self._ring.receive_once(shape, rank, Channel.MOVED))
        if mine != own:
            assert self._next_blocks is not None
            model, loras = self._next_blocks.take(mine)
            cache = cache.with_layers(parts)
            self._stage = self._stage.succeeded_by(model, cache, mine, loras)
        self.layout = layout
        self._group = layout.groups[self._group_index]
        self._rows.move_to(layout, cache)

    def close(self) -> None:
        """Let go of what is under way; nothing may be run afterwards."""
        self._due.clear()
        self._ring.close()

    def _rows_of(self, group: int, rows: Sequence[Row]) -> list[tuple[Row, ...]]:
        own = tuple(row for row in rows if self.layout.group_of(row.where.step) == group)
        return equal_shapes(own)

    def _expect(self, tick: int, by_group: Sequence[Sequence[tuple[Row, ...]]]) -> None:
        """Begin to receive what other ranks will predict and publish in this batch."""
        for group, shapes in zip(self.layout.groups, by_group, strict=True):
            for rows in shapes:
                if self._sees_latents and group.last != self.rank:
                    shape = (len(rows), rows[0].num_frames, *self._latent_shape)
                    arrival = self._ring.receive(shape, group.last, Channel.PREDICTIONS)
                    self._due.append(Due(tick, rows, arrival))
                self._rows.expect(rows)

    def _forward(self, tick: int, shapes: Sequence[tuple[Row, ...]]) -> dict[SlotKey, Tensor]:
        group, stage = self._group, self._stage
        finished: dict[SlotKey, Tensor] = {}
        before = None if self.rank == group.first else group.ranks[self._stage_index - 1]
        arriving = [
            None
            if before is None
            else self._ring.receive(self._tokens(rows), before, Channel.TOKENS)
            for rows in shapes
        ]
        for rows, arrival in zip(shapes, arriving, strict=True):
            if self._sees_latents:
                self._settle(rows, before=tick)
            self._waited_s += self._rows.settle(rows, self._clock)
            incoming = self._slots.inputs(rows) if arrival is None else self._wait(arrival)
            outgoing = stage.forward(self._rows.localised(rows), incoming)
            if arrival is not None:
                self._ring.release(arrival)
            self._rows.publish(rows)
            if self.rank != group.last:
                after = group.ranks[self._stage_index + 1]
                self._ring.send(outgoing, after, Channel.TOKENS)
                continue
            for rank in self.layout.latent_ranks:
                if rank != self.rank:
                    self._ring.send(outgoing, rank, Channel.PREDICTIONS)
            finished |= self._slots.advance(rows, outgoing)
        return finished

    def _tokens(self, rows: Sequence[Row]) -> tuple[int, ...]:
        shape = self._stage.cache.shape
        num_tokens = rows[0].num_frames * shape.grid.num_tokens
        return len(rows), num_tokens, shape.num_heads * shape.head_dim

    def _settle_until(self, tick: int) -> None:
        """Take all steps of batches that are through everywhere: a few are in flight at most."""
        self._settle_where(lambda due: due.tick <= tick)

    def _settle(self, rows: Sequence[Row], *, before: int) -> None:
        """Take the steps that others predicted for these chunks in earlier batches, and for the
        chunks before them where preludes recall those."""
        keys = {part.key for row in rows for part in row.parts}
        recalling = {row.where.session for row in rows if row.recalls}
        self._settle_where(
            lambda due: (
                due.tick < before
                and any(
                    part.key in keys or part.where.session in recalling
                    for row in due.rows
                    for part in row.parts
                )
            )
        )

    def _settle_where(self, is_wanted: Callable[[Due], bool]) -> None:
        wanted = [due for due in self._due if is_wanted(due)]
        self._due = [due for due in self._due if not is_wanted(due)]
        for due in wanted:
            self._slots.advance(due.rows, self._wait(due.arrival))
            self._ring.release(due.arrival)

    def _wait(self, arrival: Arrival) -> Tensor:
        began_s = self._clock.now()
        tensor = arrival.wait()
        self._waited_s += self._clock.now() - began_s
        return tensor

    def _apply(self, control: Control) -> None:
        match control:
            case CellsCopied(source, targets, cells, to_cells):
                self._rows.copy(source, targets, cells, to_cells or cells)
            case SlotsDropped(session):
                self._settle_where(lambda due: True)
                self._slots.drop_session(session)
                self._rows.drop_session(session)
            case PromptDropped(prompt):
                self._stage.prompts.drop(prompt)
            case LorasScaled(scales):
                self._stage.scale_loras(dict(scales))

    def _synchronize(self) -> None:
        """Seconds are those of the work, so wait for the device; a CPU has none to wait for."""
        device = self._ring.device
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()


def run_batches(member: Member, stage: RankStage) -> None:
    """Do what the leader sends until it says stop."""
    while (message := member.receive()) is not None:
        if isinstance(message, Divide):
            stage.load(message.layout)
            continue
        assert isinstance(message, Work)
        member.send(_for_the_host(stage.run(message)))
    stage.close()


def _for_the_host(done: Done) -> Done:
    """Copies of the latents alone: a pickle takes along all storage that a view looks at."""
    return replace(done, finished={key: one.cpu().clone() for key, one in done.finished.items()})


def _on_device(started: Started, ring: Ring) -> Started:
    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(ring.device, ring.dtype, non_blocking=True)

    return replace(
        started,
        latents_FCHW=started.latents_FCHW.to(ring.device, ring.dtype, non_blocking=True),
        condition_FCHW=moved(started.condition_FCHW),
        endpoint_FCHW=moved(started.endpoint_FCHW),
        given_FCHW=moved(started.given_FCHW),
    )
