"""How much of the model a pass runs through, decided by its step alone. Host integers only.

Two ways to save work, each with a cost in pictures (benchmarks/tiny-savings.json):

- *Features kept between steps*: what a range of blocks adds to the tokens changes little from one
  step to the next, so some steps take the sum of the step before instead of running the blocks:
  the Delta-Cache of Chen et al. 2024, arXiv:2406.01125, sec. 3.2, on steps that are said
  beforehand, as in FORA (Selvaraju et al. 2024, arXiv:2407.01425). A ladder of few steps is known,
  so nothing has to be measured while it runs (TeaCache does), and nothing is read from a device.
- *A reduced clean pass*: it writes the keys and values of the first blocks only; in the others
  those of the last step stay, which saw the chunk at its lowest noise level.
"""

from __future__ import annotations

from dataclasses import dataclass

ALL_BLOCKS = 1 << 30  # more than any model has


@dataclass(frozen=True, slots=True, order=True)
class Effort:
    """The blocks of one pass. Rows of unequal effort do not share a forward."""

    stop: int = ALL_BLOCKS
    """Blocks from here on are left out; of context passes only."""
    first: int = 0
    """Blocks `first` to `last` - 1 are those whose sum is kept for later passes of the chunk."""
    last: int = 0
    reuses: bool = False
    """Whether the kept sum is taken instead of running them."""

    @property
    def has_kept(self) -> bool:
        return self.last > self.first


WHOLE = Effort()


@dataclass(frozen=True, slots=True)
class Savings:
    """Fixed for the life of a session, as the recipe that holds it."""

    clean_blocks: int = ALL_BLOCKS
    """Blocks that the clean pass runs; 0: there is none."""
    reuse_steps: tuple[int, ...] = ()
    """Steps that take the sum of `reuse_blocks` from the step before; never the first."""
    reuse_blocks: tuple[int, int] = (0, 0)

    def effort(self, step: int, num_steps: int) -> Effort:
        """Of a chunk's pass at this step; the clean pass comes behind the last one."""
        if step >= num_steps:
            return Effort(stop=self.clean_blocks)
        if not self.reuse_steps:
            return WHOLE
        first, last = self.reuse_blocks
        if step in self.reuse_steps:
            return Effort(first=first, last=last, reuses=True)
        is_asked = step + 1 in self.reuse_steps
        return Effort(first=first, last=last) if is_asked else WHOLE

    def on_levels(self, chosen: tuple[int, ...]) -> Savings:
        """On a ladder of some of the levels: a step reuses where its level did."""
        steps = (step for step, level in enumerate(chosen) if level in self.reuse_steps)
        kept = tuple(step for step in steps if step > 0)
        return Savings(self.clean_blocks, kept, self.reuse_blocks if kept else (0, 0))


NO_SAVINGS = Savings()
