"""Blocks that move to other ranks while a stream runs: weights are loaded beside the work, keys
and values travel at the border of two batches.

Every rank reads the blocks that it gains from its own copy of the file; what it has keeps working
meanwhile. Once all have loaded, the leader names the layout with a batch, and from that batch on it
holds. Chunks on their way are not touched.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from streamgen.errors import StreamGenError
from streamgen.models.base import CausalDiT
from streamgen.models.wan.lora import LoraSet
from streamgen.parallel.partition import Layout

logger = logging.getLogger(__name__)

LoadBlocks = Callable[[range], tuple[CausalDiT, LoraSet | None]]


@dataclass(frozen=True, slots=True)
class Divide:
    """Load what a layout gives this rank, and say when it is there."""

    layout: Layout


@dataclass(frozen=True, slots=True)
class Loaded:
    """A rank is ready for a layout, or says why it cannot be."""

    layout: Layout
    error: str | None = None


class NextBlocks:
    """Loads the blocks of a coming layout in a thread of its own; owns them until they are taken.

    `load` reads a range of blocks from this rank's files.
    """

    def __init__(self, rank: int, load: LoadBlocks, say: Callable[[object], None]) -> None:
        self._rank = rank
        self._load = load
        self._say = say
        self._there: dict[range, tuple[CausalDiT, LoraSet | None]] = {}

    def begin(self, now: Layout, coming: Layout) -> None:
        """Load for a layout; `say` is told a Loaded in the end."""
        self._there.clear()
        blocks = coming.blocks(self._rank)
        if blocks == now.blocks(self._rank):
            self._say(Loaded(coming))
            return
        thread = threading.Thread(
            target=self._run, args=(coming, blocks), name="next-blocks", daemon=True
        )
        thread.start()

    def take(self, blocks: range) -> tuple[CausalDiT, LoraSet | None]:
        """What was loaded last."""
        return self._there.pop(blocks)

    def _run(self, coming: Layout, blocks: range) -> None:
        try:
            self._there[blocks] = self._load(blocks)
        except Exception as error:  # the thread's root: the leader hears it and goes on as it was
            if not isinstance(error, StreamGenError):
                logger.exception("rank %d could not load blocks %s", self._rank, blocks)
            self._say(Loaded(coming, f"{type(error).__name__}: {error}"))
            return
        self._say(Loaded(coming))


def common(one: range, other: range) -> range:
    """Blocks that are in both; empty if there are none."""
    return range(max(one.start, other.start), min(one.stop, other.stop))
