"""How many CPU threads a small model runs on: it is tried on the model, and measured times decide.

Threads wait for each other many times in a forward. Alone on the machine they save time; beside
busy neighbours one of them is always late, and several are many times slower than one.

Legend: B rows, F latent frames, M prompt tokens, L tokens, D model dim.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from streamgen.clock import Clock
from streamgen.engine.recipe import Recipe
from streamgen.models.base import CausalDiT
from streamgen.models.full_sequence import FullSequenceKV
from streamgen.ops.backend import Backend, num_cores, use_threads
from streamgen.ops.rope import TokenGrid, rope_table

logger = logging.getLogger(__name__)

ROUNDS = 3  # of every number of threads in turn: load comes and goes
TRIAL_S = 0.02  # of work in one trial: several turns of the system's scheduler
MAX_CALLS = 100  # in one trial: ends it on a clock that stands still
WORTH = 0.8  # more threads must need less than this share of the time of fewer ones: where they are
#              wrong they cost several times what they save where they are right


def settle_threads(
    dit: CausalDiT, backend: Backend, recipe: Recipe, grid: TokenGrid, clock: Clock
) -> int:
    """Try one thread, half of the cores and all of them on the model, and go on with the best of
    them in this thread; returns how many they are. Takes ROUNDS * TRIAL_S for each."""
    counts = candidates(num_cores())
    if len(counts) == 1 or not dit.facts.num_blocks:
        return torch.get_num_threads()
    seconds = timed(counts, use_threads, _block_of(dit, backend, recipe, grid), clock)
    count = best_of(seconds)
    use_threads(count)
    told = ", ".join(f"{1e3 * seconds[one]:.2f} ms on {one}" for one in counts)
    logger.info("CPU threads: %d (a block takes %s)", count, told)
    return count


def candidates(cores: int) -> tuple[int, ...]:
    """Numbers of threads to try, rising. Half of the cores, for two may be one in truth."""
    return tuple(sorted({1, max(1, cores // 2), cores}))


def best_of(seconds: Mapping[int, float]) -> int:
    """The number of threads to take, from seconds by number; the fewer unless more are worth it."""
    best, *more = sorted(seconds)
    for count in more:
        if seconds[count] < WORTH * seconds[best]:
            best = count
    return best


def timed(
    counts: Sequence[int], use: Callable[[int], None], work: Callable[[], object], clock: Clock
) -> dict[int, float]:
    """Seconds of one call of `work` with each number of threads: the median of some trials, each a
    mean, in which the moments without a core have their share."""
    trials: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            use(count)
            work()  # threads begin
            trials[count].append(_mean_s(work, clock))
    return {count: statistics.median(times) for count, times in trials.items()}


def _mean_s(work: Callable[[], object], clock: Clock) -> float:
    began_s, num_calls = clock.now(), 0
    while True:
        work()
        num_calls += 1
        passed_s = clock.now() - began_s
        if passed_s >= TRIAL_S or num_calls == MAX_CALLS:
            return passed_s / num_calls


def _block_of(
    dit: CausalDiT, backend: Backend, recipe: Recipe, grid: TokenGrid
) -> Callable[[], object]:
    """The first block, for the rows that one session has in a forward."""
    facts, device, dtype = dit.facts, backend.device, backend.dtype
    num_rows, num_frames = recipe.rows_in_flight, recipe.row_frames
    size = (num_rows, num_frames * grid.num_tokens, facts.num_heads * facts.head_dim)
    with torch.inference_mode():
        text_BMD = torch.zeros((num_rows, 1, facts.text_dim), device=device, dtype=dtype)
        text = {0: dit.text_kv(0, dit.embed_text(text_BMD))}
        timesteps_BF = torch.full((num_rows, num_frames), 500.0, device=device)
        cond = dit.condition(timesteps_BF, text)
        positions_BF = torch.arange(num_frames, device=device).expand(num_rows, -1)
        kv = FullSequenceKV(rope_table(positions_BF, grid, facts.head_dim, device), None)
        hidden_BLD = torch.zeros(size, device=device, dtype=dtype)

    @torch.inference_mode()
    def work() -> object:
        return dit.block(0, hidden_BLD, cond, kv)

    return work
