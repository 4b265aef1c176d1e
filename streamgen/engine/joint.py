"""`joint` mode: the chunks of a session on the ladder are one row of the forward, a window.

Window w holds chunks w - n + 1 to w on a ladder of n steps: the newest at the first step, each
older one a step further. They attend to each other both ways, and to a few clean frames before
them. A pass of its own writes what has become of the oldest into the cache, and the next window
begins one chunk later; at both ends of a stream windows hold fewer chunks (Liu et al. 2025,
arXiv:2509.25161; TencentARC/RollingForcing a1477d0, pipeline/rolling_forcing_inference.py).

So a chunk's level depends on its place in the window alone, and windows must have no gaps: with
the next chunk missing, a session waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from streamgen.cache.joint import JointWindow
from streamgen.cache.placement import Placement
from streamgen.engine.batch import CellsCopied, Row
from streamgen.engine.chunk import ChunkOnLadder
from streamgen.engine.session import Session
from streamgen.scheduling.plan import Candidate, Pass

WINDOW_ROW = 0  # of a session's two cache rows: windows read this one, clean passes the other


@dataclass(slots=True)
class JointSession(Session):
    """A session whose chunks take their steps together; a pass is named by the oldest of them."""

    def starts(self, where: Pass) -> int | None:
        """See Session: the window's newest chunk, unless no further one may come."""
        is_window = where.step < self.recipe.num_steps
        return self.next_chunk if is_window and self._may_start() else None

    def rows(self, where: Pass) -> tuple[Row, ...]:
        """See Session: one row for all chunks, or for the clean pass of the oldest."""
        oldest = self.chunks[0]
        assert (oldest.chunk, oldest.next_step) == (where.chunk, where.step)
        chunks = self.chunks if where.step < self.recipe.num_steps else [oldest]
        sizes = [self.recipe.num_frames(chunk.chunk) for chunk in chunks]
        window = self.windows[self.recipe.cache_row(where.step, False)]
        whole = window.place(self.recipe.first_frame(oldest.chunk), sum(sizes))
        rows = [
            self._row(chunk, Pass(self.id, chunk.chunk, chunk.next_step), share)
            for chunk, share in zip(chunks, _shares(whole, sizes), strict=True)
        ]
        for chunk in chunks:
            chunk.next_step += 1
            chunk.is_busy = True
        return (replace(rows[0], placement=whole, younger=tuple(rows[1:])),)

    def copies_after(self, row: Row) -> tuple[CellsCopied, ...]:
        """See Session: windows read what the clean pass has written."""
        if not row.is_context:
            return ()
        window = self.windows[WINDOW_ROW]
        assert isinstance(window, JointWindow)
        frames = range(row.first_frame, row.first_frame + row.num_frames)
        target = self.cache_rows[WINDOW_ROW]
        return (
            CellsCopied(row.cache_row, (target,), row.placement.write_cells, window.cells(frames)),
        )

    def _candidates(self, waiting_due_s: tuple[float, ...]) -> Iterator[Candidate]:
        oldest = self.chunks[0] if self.chunks else None
        if oldest is not None and oldest.is_busy:
            return
        if oldest is not None and oldest.next_step == self.recipe.num_steps:
            yield self._candidate(oldest)
        elif self._may_start():
            yield self._window_candidate(oldest or self._next_start(waiting_due_s), 1)
        elif oldest is not None and (self.starter.has_ended() or self.rung != self.wanted_rung):
            yield self._window_candidate(oldest, 0)

    def _window_candidate(self, oldest: ChunkOnLadder | Candidate, num_new: int) -> Candidate:
        """The pass of a window with so many chunks that are not on the ladder yet."""
        first = oldest if isinstance(oldest, Candidate) else self._candidate(oldest)
        end = self.next_chunk + num_new
        num_frames = self.recipe.first_frame(end) - self.recipe.first_frame(first.where.chunk)
        return replace(first, num_frames=num_frames)


def _shares(whole: Placement, sizes: list[int]) -> Iterator[Placement]:
    """The part of a placement that each of its chunks has."""
    first = 0
    for size in sizes:
        own = slice(first, first + size)
        yield replace(
            whole,
            write_cells=whole.write_cells[own],
            query_positions=whole.query_positions[own],
        )
        first += size
