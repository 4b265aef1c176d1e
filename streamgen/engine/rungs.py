"""How a session changes its quality at an epoch: another recipe, other cache rows, their content.

A session's rows are known by what they hold, chunks at a certain timestep. A row that both recipes
have stays as it is; one that the new recipe does not need is given back; a new one begins as a copy
of the nearest that there is, so the stream keeps its past and the picture does not jump.
"""

from __future__ import annotations

import copy
import logging

from streamgen.cache.placement import CacheWindow
from streamgen.cache.rows import RowPool
from streamgen.engine.batch import CellsCopied
from streamgen.engine.collaborators import GradedStarter
from streamgen.engine.meters import ServiceMeters
from streamgen.engine.session import Session
from streamgen.errors import CapacityError

logger = logging.getLogger(__name__)


def begin_epoch(session: Session, pool: RowPool, meters: ServiceMeters) -> tuple[CellsCopied, ...]:
    """Let a session that is at an epoch change to the rung that was wanted of it.

    Returns what must be copied before its next forward. Where the rows are taken it stays on its
    rung, and nothing else is wanted of it any more.
    """
    wanted = session.wanted_rung
    try:
        copies = change_rung(session, wanted, pool)
    except CapacityError as error:
        logger.info("session %d stays where it is: %s", session.id, error)
        session.wanted_rung = session.rung
        return ()
    if isinstance(session.starter, GradedStarter):
        session.starter.set_quality(session.quality)
    if session.watcher is not None:
        session.watcher.changed_rung(wanted)
    session.report.num_changes += 1
    meters.changes.add()
    logger.info("session %d goes on with %s", session.id, session.quality)
    return copies


def change_rung(session: Session, rung: int, pool: RowPool) -> tuple[CellsCopied, ...]:
    """Put a drained session on another rung; returns what must be copied before its next forward.

    Raises CapacityError if the rows that it needs are taken, and then nothing has changed.
    """
    assert not session.chunks, "the number of steps changes only when a session has drained"
    before, after = session.recipe, session.rungs[rung].recipe
    rows_and_windows = zip(session.cache_rows, session.windows, strict=True)
    old = dict(zip(before.row_levels(), rows_and_windows, strict=True))
    wanted = after.row_levels()
    new = [level for level in wanted if level not in old]
    leased = _lease(pool, len(new))
    copies: list[CellsCopied] = []
    held: dict[tuple[float, bool], tuple[int, CacheWindow]] = dict(old)
    for level, row in zip(new, leased, strict=True):
        source, window = old[_nearest(level, tuple(old))]
        held[level] = (row, copy.deepcopy(window))
        copies.append(CellsCopied(source, (row,), tuple(range(after.sinks + after.ring))))
    gone = tuple(row for level, (row, _) in old.items() if level not in wanted)
    if gone:
        pool.release(gone)
    session.cache_rows = tuple(held[level][0] for level in wanted)
    session.windows = [held[level][1] for level in wanted]
    session.recipe = after
    session.rung = session.wanted_rung = rung
    return tuple(copies)


def _lease(pool: RowPool, count: int) -> tuple[int, ...]:
    """Rows wherever they are free: those that the session gave back lie apart."""
    leased: list[int] = []
    try:
        for _ in range(count):
            leased.extend(pool.lease(1))
    except CapacityError:
        if leased:
            pool.release(tuple(leased))
        raise
    return tuple(leased)


def _nearest(
    level: tuple[float, bool], known: tuple[tuple[float, bool], ...]
) -> tuple[float, bool]:
    same_side = [one for one in known if one[1] == level[1]] or list(known)
    return min(same_side, key=lambda one: abs(one[0] - level[0]))
