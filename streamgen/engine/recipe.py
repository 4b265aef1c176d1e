"""How one session's chunks walk down the ladder: the settings of a model family, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from streamgen.cache.context import RecomputedContext
from streamgen.cache.joint import JointWindow
from streamgen.cache.placement import CacheWindow
from streamgen.cache.policies import (
    FORGET,
    KEEP_ALL,
    OWN_PLACE,
    Eviction,
    OnSwitch,
    Recache,
    SinkPlace,
)
from streamgen.cache.window import Positions, RollingWindow
from streamgen.diffusion.guidance import Guidance
from streamgen.diffusion.schedule import Ladder
from streamgen.engine.batch import Level
from streamgen.engine.effort import NO_SAVINGS, Savings
from streamgen.scheduling.service import Quality


class CacheMode(StrEnum):
    """What a chunk attends to."""

    CLEAN = "clean"
    """The clean cache of earlier chunks, written by one more pass after the last step."""
    PER_STEP = "per_step"
    """At step i, what earlier chunks looked like at step i: a cache row for each step."""
    CASCADED = "cascaded"
    """At step i, the freshest that there is of earlier chunks where each trails the one before it
    by so many passes: a row for each pass; see `streamgen.engine.cascade`."""
    RECOMPUTE = "recompute"
    """The clean latents of earlier chunks, run through the model anew before each chunk."""
    JOINT = "joint"
    """The other chunks on the ladder, each at a level of its own, and clean frames before them: one
    row a window of chunks, and one that the clean pass reads, with a longer look back."""

    @property
    def has_context_pass(self) -> bool:
        """Whether a finished chunk is written to the cache by a pass of its own."""
        return self in (CacheMode.CLEAN, CacheMode.CASCADED, CacheMode.JOINT)

    @property
    def overlaps_chunks(self) -> bool:
        """Whether a chunk may start before the one before it has finished."""
        return self in (CacheMode.PER_STEP, CacheMode.CASCADED)


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What sinks are and what a new prompt does to the cache; by default nothing special."""

    sink_place: SinkPlace = OWN_PLACE
    eviction: Eviction = FORGET
    """What sinks take over from frames that leave the ring."""
    on_switch: OnSwitch = KEEP_ALL
    refresh_frames: int = 0
    """Where absolute positions are set back; 0: never."""
    sink_threshold: float | None = None
    """Likeness below which a new frame replaces a sink; None: sinks are not adaptive."""

    @property
    def moves_sinks(self) -> bool:
        """Whether sinks change their positions, so that keys must be stored unrotated."""
        return self.sink_place != OWN_PLACE


@dataclass(frozen=True, slots=True)
class Recipe:
    """Fixed for the life of a session."""

    ladder: Ladder
    mode: CacheMode
    context_level: Level
    """What the clean pass and a prelude are told (not in `per_step` mode)."""
    sinks: int
    ring: int
    positions: Positions
    chunk_frames: int
    """Latent frames of a chunk."""
    first_chunk_frames: int
    """Latent frames of a session's first chunk."""
    first_chunk_is_alone: bool
    """The first chunk takes all steps before the second starts; then what its last step wrote is
    copied to the rows of all steps (StreamDiffusionV2 c5a0f20, `prepare`)."""
    guidance: Guidance
    cache: CachePolicy = CachePolicy()
    savings: Savings = NO_SAVINGS
    later_steps: tuple[int, ...] = ()
    """The steps that chunks after the first take, from step 0 on; empty: all, as the first does.
    Not where each step has a row, or its place in a window."""
    lag: int = 1
    """Passes by which a chunk trails the one before it, in `cascaded` mode."""

    @property
    def num_steps(self) -> int:
        return self.ladder.num_steps

    @property
    def num_passes(self) -> int:
        """Steps, and the clean-context pass where the mode has one and nobody saves it."""
        has_context_pass = self.mode.has_context_pass and self.savings.clean_blocks > 0
        return self.num_steps + has_context_pass

    @property
    def max_in_flight(self) -> int:
        """Chunks of one session that can be on the ladder at once."""
        if self.mode is CacheMode.CASCADED:
            return self._max_cascaded(1)
        is_batch = self.mode in (CacheMode.PER_STEP, CacheMode.JOINT)
        return self.num_steps if is_batch else 1

    @property
    def rows_in_flight(self) -> int:
        """Rows of a batch that the chunks of one session take at once, without guidance."""
        return self.max_in_flight if self.mode.overlaps_chunks else 1

    @property
    def row_frames(self) -> int:
        """Latent frames of the longest of those rows."""
        num_chunks = self.max_in_flight // self.rows_in_flight
        first = max(self.chunk_frames, self.first_chunk_frames)
        return first + (num_chunks - 1) * self.chunk_frames

    def max_chunks(self, depth: int) -> int:
        """As `max_in_flight`, where the executor has `depth` batches in flight: a chunk rides in
        one of them at a time, and each batch is to have a chunk at every step."""
        if self.mode is CacheMode.CASCADED:
            return self._max_cascaded(depth)
        if self.mode is CacheMode.PER_STEP:
            return self.num_steps * depth
        if self.mode is CacheMode.JOINT:
            return self.num_steps
        return min(2, depth)  # one follows the last pass of the other

    @property
    def num_cache_rows(self) -> int:
        """Rows that a session leases: a plain and perhaps a negative side."""
        return sum(len(side) for side in self.step_rows())

    @property
    def max_pass_rows(self) -> int:
        """Rows of a batch that the widest pass takes."""
        return 1 + any(self.has_negative(step) for step in range(self.num_passes))

    def has_negative(self, step: int) -> bool:
        """Whether a pass has a negative row beside it; context passes keep its cache, too."""
        if step < self.num_steps:
            return self.guidance.needs_negative_pass(step)
        return any(self.guidance.needs_negative_pass(other) for other in range(self.num_steps))

    def step_rows(self) -> tuple[tuple[int, ...], ...]:
        """The rows of the plain side in the order of steps, then those of the negative side."""
        plain = [self.cache_row(step, False) for step in range(self.num_passes)]
        negative = [
            self.cache_row(step, True) for step in range(self.num_passes) if self.has_negative(step)
        ]
        return tuple(dict.fromkeys(plain)), tuple(dict.fromkeys(negative))

    def cache_row(self, step: int, is_negative: bool) -> int:
        """Which of the session's rows a pass works in."""
        if self.mode is CacheMode.JOINT:
            return int(step == self.num_steps)
        if not self.mode.overlaps_chunks:
            return int(is_negative)
        if not is_negative:
            return step
        return self.num_passes + sum(self.has_negative(other) for other in range(step))

    def steps(self, chunk: int) -> tuple[int, ...]:
        """The steps that a chunk takes, rising."""
        if chunk == 0 or not self.later_steps:
            return tuple(range(self.num_steps))
        return self.later_steps

    def step_after(self, chunk: int, step: int) -> int:
        """What comes after a pass: a step, the clean pass, or `num_passes` behind the last."""
        if step >= self.num_steps:
            return step + 1
        return next((later for later in self.steps(chunk) if later > step), self.num_steps)

    def next_sigma(self, chunk: int, step: int) -> float | None:
        """Noise level after a step; None after the last, whose result is the clean chunk."""
        after = self.step_after(chunk, step)
        return self.ladder.sigmas[after] if after < self.num_steps else None

    def num_frames(self, chunk: int) -> int:
        return self.first_chunk_frames if chunk == 0 else self.chunk_frames

    def first_frame(self, chunk: int) -> int:
        """Index of a chunk's first latent frame in the stream."""
        return 0 if chunk == 0 else self.first_chunk_frames + (chunk - 1) * self.chunk_frames

    def opening_with(self, num_frames: int) -> Recipe:
        """The recipe of a session whose first `num_frames` latent frames are given.

        They are cut into chunks from the end, so that the first one may be shorter.
        """
        return replace(self, first_chunk_frames=(num_frames - 1) % self.chunk_frames + 1)

    @property
    def first_chunk_is_shared(self) -> bool:
        """Whether the first chunk goes alone, for the rows of all steps."""
        return self.first_chunk_is_alone and self.mode is CacheMode.PER_STEP

    @property
    def has_preludes(self) -> bool:
        """Whether a chunk may need finished frames once more, so that their latents are kept."""
        return self.mode is CacheMode.RECOMPUTE or isinstance(self.cache.on_switch, Recache)

    @property
    def can_reanchor(self) -> bool:
        """Whether a window can begin anew at a scene; adaptive sinks change by themselves."""
        has_ring = self.mode not in (CacheMode.RECOMPUTE, CacheMode.JOINT)
        return has_ring and self.cache.sink_threshold is None

    def new_windows(self) -> list[CacheWindow]:
        """Empty windows of a session's cache rows."""
        if self.mode is CacheMode.JOINT:
            budget = self.sinks + self.ring
            history = RollingWindow(sinks=0, ring=budget, positions=Positions.WINDOW)
            return [JointWindow(sinks=self.sinks, ring=self.ring), history]
        return [self.new_window() for _ in range(self.num_cache_rows)]

    def new_window(self) -> CacheWindow:
        """An empty window of a row in which all rows are alike: not in `joint` mode."""
        if self.mode is CacheMode.RECOMPUTE:
            return RecomputedContext(
                first=self.sinks,
                newest=self.ring - self.chunk_frames,
                chunk_frames=self.chunk_frames,
            )
        return RollingWindow(
            sinks=self.sinks,
            ring=self.ring,
            positions=self.positions,
            sink_place=self.cache.sink_place,
            eviction=self.cache.eviction,
            on_switch=self.cache.on_switch,
            refresh_frames=self.cache.refresh_frames,
            is_adaptive=self.cache.sink_threshold is not None,
        )

    def with_steps(self, num_steps: int) -> Recipe:
        """This recipe on so many levels of its ladder, evenly chosen from the noisiest on.

        Raises ValueError unless 1 <= num_steps <= the steps of this one.
        """
        levels = self.num_steps
        if num_steps == levels:
            return self
        if not 1 <= num_steps <= levels:
            raise ValueError(f"{num_steps} steps are not in 1 to {levels}")
        chosen = [step * levels // num_steps for step in range(num_steps)]
        ladder = Ladder(
            timesteps=tuple(self.ladder.timesteps[level] for level in chosen),
            sigmas=tuple(self.ladder.sigmas[level] for level in chosen),
        )
        is_alone = self.first_chunk_is_alone and num_steps > 1
        kept = tuple(step for step, level in enumerate(chosen) if level in self.later_steps)
        return replace(
            self,
            ladder=ladder,
            first_chunk_is_alone=is_alone,
            savings=self.savings.on_levels(tuple(chosen)),
            later_steps=kept if len(kept) < num_steps else (),
        )

    def row_levels(self) -> tuple[tuple[float, bool], ...]:
        """What each cache row of a session holds: chunks at which timestep, on which side.

        Outside `per_step` mode all rows hold clean chunks, which any number of steps reads; in
        `joint` mode the first is the one in which windows begin.
        """
        if self.mode is CacheMode.JOINT:
            return ((self.ladder.timesteps[0], False), (0.0, False))
        if not self.mode.overlaps_chunks:
            sides = sum(len(side) > 0 for side in self.step_rows())
            return tuple((0.0, bool(side)) for side in range(sides))
        passes = range(self.num_passes)
        timesteps = (*self.ladder.timesteps, 0.0)
        return (
            *((timesteps[step], False) for step in passes),
            *((timesteps[step], True) for step in passes if self.has_negative(step)),
        )

    def _max_cascaded(self, depth: int) -> int:
        """A pass takes `depth` batches, and the next chunk starts one batch after its turn came."""
        return -(-self.num_passes * depth // (self.lag * depth + 1))


@dataclass(frozen=True, slots=True)
class Rung:
    """A quality, and the recipe that gives it."""

    quality: Quality
    recipe: Recipe


def rungs_of(full: Recipe, ladder: tuple[Quality, ...]) -> tuple[Rung, ...]:
    """The rungs of a quality ladder for sessions of a recipe."""
    return tuple(Rung(quality, full.with_steps(quality.num_steps)) for quality in ladder)
