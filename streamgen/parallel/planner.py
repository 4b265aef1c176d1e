"""How to divide a model among GPUs for one stream: what each way would give, before anything runs.

Arithmetic on a hardware profile (`streamgen.scheduling.profiles`); host numbers only. A pipeline is
as fast as its slowest GPU: its blocks, for all rows of a batch, what it sends, and whatever of the
codec runs beside them.

    layers    P stages, P batches under way, hidden states travel
    steps     each rank has the whole model and some passes; latents travel; one batch under way,
              so encoding and decoding are not hidden behind it
    2+1       groups of passes, each divided by layers

Latency is from the last picture of a clip to its first one drawn: a wait for the next batch,
encoding, all passes, decoding. Rates hold for a stream that always has input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from streamgen.errors import ConfigError
from streamgen.parallel.partition import balance, imbalance
from streamgen.scheduling.profiles import DividedModel, HardwareProfile


class CodecPlace(StrEnum):
    """Which GPUs encode and decode."""

    FIRST = "first"
    """The first rank's, beside its blocks."""
    ENDS = "ends"
    """The first rank's encodes, the last rank's decodes."""
    OWN = "own"
    """One that runs no blocks."""


class Reads(StrEnum):
    """What earlier chunks look like to a chunk: `cache.mode`."""

    CLEAN = "clean"
    CASCADED = "cascaded"
    PER_STEP = "per_step"


@dataclass(frozen=True, slots=True)
class Link:
    """What joins two GPUs."""

    name: str
    gb_per_s: float
    """One direction."""
    fixed_s: float
    """Of every message."""

    def seconds(self, size_mb: float) -> float:
        return self.fixed_s + size_mb / 1e3 / self.gb_per_s


LINKS = {
    link.name: link
    for link in (
        Link("nvlink", 450.0, 20e-6),  # H100 SXM data sheet: 900 GB/s, both directions together
        Link("pcie", 55.0, 20e-6),  # 16 lanes of generation 5, less what its protocol takes
        Link("ethernet", 11.0, 100e-6),  # 100 Gbit/s, assumed
        Link("loopback", 1.0, 300e-6),  # gloo between processes of one machine, assumed
    )
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device."""

    memory_gb: float
    speed: float = 1.0
    """As a multiple of the profile's."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one stream asks for."""

    fps: float
    latency_s: float | None
    reads: Reads
    steps: int
    lag: int = 1
    """Of a cascade."""

    @property
    def num_passes(self) -> int:
        return self.steps + (self.reads is not Reads.PER_STEP)

    def rows(self, depth: int) -> float:
        """Rows of a batch, with `depth` batches under way; below 1 where some go empty."""
        passes = self.num_passes
        if self.reads is Reads.PER_STEP:
            return float(passes)
        lag = self.lag if self.reads is Reads.CASCADED else passes - 1
        return min(float(passes), passes / (lag * depth + 1))

    def cache_rows(self, num_passes: int) -> int:
        """Of a rank that runs so many passes."""
        return 1 if self.reads is Reads.CLEAN else num_passes


@dataclass(frozen=True, slots=True)
class Division:
    """One way to divide the work, and what to expect of it."""

    split: str
    """As `--split` takes it."""
    codec: CodecPlace
    blocks: tuple[int, ...]
    """Of each rank."""
    fps: float
    latency_s: float
    gpu_s: tuple[float, ...]
    """Seconds of each GPU for a batch; a codec's own GPU comes first."""
    memory_gb: tuple[float, ...]
    fits: bool

    @property
    def imbalance(self) -> float:
        return imbalance(self.gpu_s)

    def keeps(self, wanted: Wanted) -> bool:
        in_time = wanted.latency_s is None or self.latency_s <= wanted.latency_s
        return self.fits and in_time and self.fps >= wanted.fps


def plan(
    profile: HardwareProfile, gpus: Sequence[Gpu], link: Link, wanted: Wanted
) -> list[Division]:
    """All ways that there are, best first: of those that keep the level the one with the least
    latency, else the fastest.

    Raises ConfigError if the profile says nothing about blocks, or there is no GPU.
    """
    model = profile.model
    if model is None:
        raise ConfigError(f"profile {profile.name} knows no blocks to divide; choose another")
    if not gpus:
        raise ConfigError("0 GPUs run nothing; ask for at least 1")
    found = [
        _Divider(profile, model, link, wanted).divide(gpus, stages, codec)
        for stages, codec in _ways(len(gpus), wanted.num_passes, model.num_blocks)
    ]
    return sorted(found, key=lambda one: _worth(one, wanted))


def _worth(one: Division, wanted: Wanted) -> tuple[bool, bool, float]:
    keeps = one.keeps(wanted)
    return not one.fits, not keeps, one.latency_s if keeps else -one.fps


def _ways(
    num_gpus: int, num_passes: int, num_blocks: int
) -> Iterator[tuple[tuple[int, ...], CodecPlace]]:
    """Ranks of each group of passes, every number of groups, as even as can be."""
    for codec in CodecPlace:
        num_ranks = num_gpus - (codec is CodecPlace.OWN)
        if num_gpus == 1 and codec is not CodecPlace.FIRST:
            continue
        for num_groups in range(1, min(num_ranks, num_passes) + 1):
            each, more = divmod(num_ranks, num_groups)
            stages = tuple(each + (group < more) for group in range(num_groups))
            if max(stages) <= num_blocks:
                yield stages, codec


@dataclass(frozen=True, slots=True)
class _Divider:
    profile: HardwareProfile
    model: DividedModel
    link: Link
    wanted: Wanted

    def divide(self, gpus: Sequence[Gpu], stages: tuple[int, ...], codec: CodecPlace) -> Division:
        model, wanted = self.model, self.wanted
        depth, num_passes = max(stages), wanted.num_passes
        rows = wanted.rows(depth)
        chunks = rows / num_passes  # that finish with a batch
        encode_s, decode_s = self._codec_s()
        is_own = codec is CodecPlace.OWN
        ranks = gpus[is_own:]
        fixed_s = [0.0] * len(ranks)
        if not is_own:
            fixed_s[0] += chunks * encode_s / ranks[0].speed
            decodes = -1 if codec is CodecPlace.ENDS else 0
            fixed_s[decodes] += chunks * decode_s / ranks[decodes].speed
        seconds: list[float] = []
        blocks: list[int] = []
        memory: list[float] = []
        walk: list[tuple[int, int]] = []  # passes, stages of each group
        passes = balance([1.0] * num_passes, [float(count) for count in stages])
        for owned, count in zip(passes, stages, strict=True):
            own = slice(len(blocks), len(blocks) + count)
            whole_s = self._forward_s(max(1.0, rows * len(owned) / num_passes))
            speeds = [gpu.speed for gpu in ranks[own]]
            cut = balance([whole_s / model.num_blocks] * model.num_blocks, speeds, fixed_s[own])
            for piece, speed, more_s in zip(cut, speeds, fixed_s[own], strict=True):
                share = len(piece) / model.num_blocks
                sent_s = self.link.seconds(model.hidden_mb * max(1.0, rows)) if count > 1 else 0.0
                seconds.append(more_s + whole_s * share / speed + sent_s)
                memory.append(
                    share * (model.weights_gb + model.row_gb * wanted.cache_rows(len(owned)))
                )
                blocks.append(len(piece))
            walk.append((len(owned), count))
        if is_own:
            seconds.insert(0, chunks * (encode_s + decode_s) / gpus[0].speed)
            memory.insert(0, 0.0)
        for gpu in {0, len(memory) - 1} if codec is CodecPlace.ENDS else {0}:
            memory[gpu] += model.codec_gb
        batch_s = max(seconds) + self.link.seconds(model.latent_mb) * (len(gpus) > 1)
        if depth == 1:  # what is not beside a batch comes between two of them
            batch_s += chunks * (encode_s + decode_s) - max(fixed_s)
        walk_s = batch_s * depth * num_passes
        return Division(
            split=_split(stages),
            codec=codec,
            blocks=tuple(blocks),
            fps=self.profile.clip_frames * chunks / batch_s,
            latency_s=batch_s + encode_s + walk_s + decode_s,
            gpu_s=tuple(seconds),
            memory_gb=tuple(memory),
            fits=all(need <= gpu.memory_gb for need, gpu in zip(memory, gpus, strict=True)),
        )

    def _forward_s(self, rows: float) -> float:
        fit = self.profile.costs.denoise
        return fit.fixed_s + fit.per_unit_s * rows

    def _codec_s(self) -> tuple[float, float]:
        costs, pictures = self.profile.costs, self.profile.clip_frames
        return (
            costs.encode.fixed_s + costs.encode.per_unit_s * pictures,
            costs.decode.fixed_s + costs.decode.per_unit_s * pictures,
        )


def _split(stages: tuple[int, ...]) -> str:
    if len(stages) == 1:
        return "layers"
    return "steps" if set(stages) == {1} else "+".join(str(count) for count in stages)
