"""What a plan expects of every way to divide a model, on hardware whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamgen.errors import ConfigError
from streamgen.parallel.planner import LINKS, CodecPlace, Division, Gpu, Reads, Wanted, plan
from streamgen.scheduling.latency import Costs, LatencyFit
from streamgen.scheduling.profiles import DividedModel, HardwareProfile, at_size, profile_of
from streamgen.serving.planning import PlanOptions, plan_lines

FREE_LINK = replace(LINKS["nvlink"], gb_per_s=1e9, fixed_s=0.0)
MODEL = DividedModel(
    num_blocks=24, weights_gb=24.0, row_gb=2.4, hidden_mb=10.0, latent_mb=0.1, codec_gb=1.0
)
PROFILE = HardwareProfile(
    name="made-up",
    origin="computed",
    costs=Costs(LatencyFit(0.0, 0.024)),
    cache_rows=10,
    clip_frames=4,
    steps=2,
    has_tiny_codec=False,
    smallest_picture=1.0,
    memory_gb=80.0,
    picture=(480, 832),
    model=MODEL,
)
WANTED = Wanted(fps=1.0, latency_s=None, reads=Reads.PER_STEP, steps=2)


def found(
    count: int, *, profile: HardwareProfile = PROFILE, wanted: Wanted = WANTED, speed: float = 1.0
) -> dict[tuple[str, CodecPlace], Division]:
    gpus = [Gpu(profile.memory_gb)] * (count - 1) + [Gpu(profile.memory_gb, speed)]
    return {(one.split, one.codec): one for one in plan(profile, gpus, FREE_LINK, wanted)}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_equal_gpus_multiply_the_rate_where_nothing_else_costs(count: int) -> None:
    """A free link and no codec: two rows of 24 ms a chunk of four pictures, divided by P."""
    one = found(1)["layers", CodecPlace.FIRST]
    assert one.fps == pytest.approx(4 / 0.048)
    many = found(count)["layers", CodecPlace.FIRST]
    assert many.fps == pytest.approx(count * one.fps)
    assert many.blocks == (24 // count,) * count


def test_a_gpu_of_half_the_speed_gets_fewer_blocks() -> None:
    divided = found(3, speed=0.5)["layers", CodecPlace.FIRST]
    assert divided.blocks == (10, 10, 4)
    assert divided.imbalance < 0.1


def test_a_codec_takes_blocks_away_from_where_it_runs() -> None:
    """12 ms each to encode and decode, beside 48 ms of blocks: 36 ms each if all are even."""
    costs = Costs(LatencyFit(0.0, 0.024), LatencyFit(0.0, 0.003), LatencyFit(0.0, 0.003))
    divided = found(2, profile=replace(PROFILE, costs=costs))
    assert divided["layers", CodecPlace.ENDS].blocks == (12, 12)
    assert divided["layers", CodecPlace.FIRST].blocks == (6, 18)
    assert divided["layers", CodecPlace.FIRST].gpu_s == pytest.approx((0.036, 0.036))


def test_clean_context_gains_little_and_a_cascade_gains_much() -> None:
    """Three passes a chunk: clean context overlaps one, a cascade of lag 1 fills four ranks."""
    rates = {
        reads: found(4, wanted=replace(WANTED, reads=reads))["layers", CodecPlace.FIRST].fps
        for reads in (Reads.CLEAN, Reads.CASCADED)
    }
    one = found(1, wanted=replace(WANTED, reads=Reads.CLEAN))["layers", CodecPlace.FIRST].fps
    assert rates[Reads.CLEAN] == pytest.approx(one * 12 / 9)
    assert rates[Reads.CASCADED] == pytest.approx(one * 12 / 5)


def test_weights_and_cache_are_counted_where_they_lie() -> None:
    divided = found(2)
    assert divided["layers", CodecPlace.OWN].memory_gb == pytest.approx((1.0, 28.8))
    assert divided["layers", CodecPlace.ENDS].memory_gb == pytest.approx((15.4, 15.4))
    assert divided["steps", CodecPlace.ENDS].memory_gb == pytest.approx((27.4, 27.4))
    small = found(2, profile=replace(PROFILE, memory_gb=16.0))
    assert small["layers", CodecPlace.ENDS].fits
    assert not small["steps", CodecPlace.ENDS].fits


def test_what_keeps_the_level_comes_first_and_of_that_the_soonest() -> None:
    gpus = [Gpu(80.0)] * 4
    level = Wanted(fps=16.0, latency_s=None, reads=Reads.PER_STEP, steps=4)
    ways = plan(profile_of("h100-14b"), gpus, LINKS["nvlink"], level)
    keeping = [one.latency_s for one in ways if one.keeps(level)]
    assert keeping
    assert keeping == sorted(keeping)
    assert [one.keeps(level) for one in ways] == sorted(
        (one.keeps(level) for one in ways), reverse=True
    )


@pytest.mark.parametrize(("profile", "published_fps"), [("h100-1.3b", 42.26), ("h100-14b", 39.24)])
def test_four_h100_are_expected_to_do_what_was_published(
    profile: str, published_fps: float
) -> None:
    """StreamDiffusionV2 (arXiv:2511.07399), one step at 480p on four H100 over NVLink, codec at
    the ends: both sizes wait for the decoder, whose seconds come from another publication."""
    level = Wanted(fps=16.0, latency_s=None, reads=Reads.PER_STEP, steps=1)
    best = plan(profile_of(profile), [Gpu(80.0)] * 4, LINKS["nvlink"], level)[0]
    assert (best.split, best.codec) == ("layers", CodecPlace.ENDS)
    assert best.fps == pytest.approx(published_fps, rel=0.1)


def test_a_larger_picture_costs_more_of_everything_but_weights() -> None:
    larger = at_size(PROFILE, 4.0)
    assert larger.costs.denoise.per_unit_s == 4 * PROFILE.costs.denoise.per_unit_s
    assert larger.model is not None
    assert larger.model.row_gb == 4 * MODEL.row_gb
    assert larger.model.weights_gb == MODEL.weights_gb


def test_a_table_ends_with_the_command_to_run() -> None:
    lines = plan_lines(PlanOptions(4, "h100-14b", steps=1))
    assert lines[-1].endswith("--gpus 4 --split layers --codec ends")
    assert "computed" in lines[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (PlanOptions(0, "h100-14b"), "0 GPUs are not in 1 to 64"),
        (PlanOptions(2, "h100-14b", link="string"), "known: nvlink, pcie"),
        (PlanOptions(2, "h100-14b", speeds=(1.0,)), "1 speeds for 2 GPUs"),
        (PlanOptions(2, "h100-14b", reads="wet"), "known: clean, cascaded, per_step"),
        (PlanOptions(2, "h100-14b", lag=2), "is for --reads cascaded"),
        (PlanOptions(2, "h100-14b", fps=0.0), "must be above 0"),
        (PlanOptions(2, "abacus"), "no hardware profile 'abacus'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: PlanOptions, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan_lines(options)
    assert words in str(refused.value)
