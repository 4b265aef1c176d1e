"""SloAware against what others do, over workloads of many kinds, on a stopwatch."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import pytest

from streamgen.errors import ConfigError
from streamgen.scheduling.baselines import FirstComeFirstServed
from streamgen.scheduling.capacity import Capacity, Governor, Offer, Verdict
from streamgen.scheduling.cluster import simulate_day
from streamgen.scheduling.curves import draw
from streamgen.scheduling.gallery import gallery
from streamgen.scheduling.kinds import Kind
from streamgen.scheduling.lane import Demand
from streamgen.scheduling.latency import Costs, LatencyFit
from streamgen.scheduling.service import ServiceLevel
from streamgen.scheduling.simulate import SCHEMES, Outcome, simulate
from streamgen.scheduling.workload import Workload, workload_of

OURS, *OTHERS = SCHEMES
LENGTH_S = 40.0
WORKLOADS = gallery(LENGTH_S)


@cache
def outcome(name: str, place: int) -> Outcome:
    return simulate(WORKLOADS[name], SCHEMES[place])


@pytest.mark.parametrize("name", WORKLOADS)
def test_hardly_any_deadline_is_missed_and_never_more_than_by_the_best_other(name: str) -> None:
    """Late chunks, stalls and dropped clips together; at least as many chunks come in time."""
    ours = outcome(name, 0)
    others = [outcome(name, place) for place in range(1, len(SCHEMES))]
    assert ours.num_admitted > 0
    assert ours.miss_share <= 0.01
    assert ours.num_missed <= min(other.num_missed for other in others) + 0.002 * ours.num_due
    assert ours.num_on_time >= max(
        (other.num_on_time for other in others if other.miss_share <= 0.01), default=0
    )


@pytest.mark.parametrize("name", [n for n, w in WORKLOADS.items() if w.latency_s and not w.kinds])
def test_latency_stays_within_what_was_promised(name: str) -> None:
    assert outcome(name, 0).p99_s <= WORKLOADS[name].latency_s


@pytest.mark.parametrize(
    "name", [n for n, w in WORKLOADS.items() if n.startswith(("tight", "newcomers"))]
)
def test_where_deadlines_differ_the_order_of_rows_decides(name: str) -> None:
    """First come, first served makes tight sessions late that our admission has let in."""
    ours, scheme = outcome(name, 0), replace(OURS, make_policy=FirstComeFirstServed)
    theirs = [simulate(replace(WORKLOADS[name], seed=seed), scheme) for seed in (0, 1)]
    assert sum(one.num_missed for one in theirs) > 0.01 * sum(one.num_due for one in theirs)
    assert ours.miss_share <= 0.01


def test_a_slowdown_is_absorbed_within_two_seconds_and_undone_slowly() -> None:
    levels = outcome("hardware at half its speed", 0).levels
    (_, first), (down_s, low), *rest = levels
    assert first == 0 < low
    assert 10.0 <= down_s <= 12.0
    assert rest[-1][1] == 0
    assert rest[0][0] >= max(20.0, down_s + 10.0)


def test_levels_do_not_swing_under_constant_load() -> None:
    """At most one change in ten seconds, also with ten per cent of noise on all costs."""
    for sessions, seed in itertools.product((4, 5, 7), (0, 1)):
        workload = Workload(sessions=sessions, seconds=60.0, noise=0.1, seed=seed)
        times = [time_s for time_s, _ in simulate(workload, OURS).levels[1:] if time_s > 2.0]
        assert all(later - earlier >= 10.0 for earlier, later in itertools.pairwise(times))


def test_the_same_seed_gives_the_same_evening() -> None:
    assert simulate(WORKLOADS["churn"], OURS) == simulate(WORKLOADS["churn"], OURS)


SERVICE = ServiceLevel(fps=16, first_frame_s=2.0, latency_s=0.6)


def demand(steps: int, in_flight: int) -> Demand:
    return Demand(0.25, 0.1875, steps, 0, 1, 1, in_flight, 4, steps)


@pytest.mark.parametrize("fixed_s", [0.001, 0.01, 0.03])
@pytest.mark.parametrize("per_row_s", [0.005, 0.02, 0.035])
@pytest.mark.parametrize(("steps", "in_flight"), [(1, 1), (2, 1), (2, 2)])
def test_as_many_fit_as_any_order_of_forwards_could_serve(
    fixed_s: float, per_row_s: float, steps: int, in_flight: int
) -> None:
    """Within a tenth of what no order of forwards at all could exceed."""
    costs = Costs(LatencyFit(fixed_s, per_row_s))
    capacity = Capacity(max_rows=640, cache_rows=640)
    offer = Offer(SERVICE, (demand(steps, in_flight),))
    most = upper_bound(costs, steps, in_flight)
    ours = next(n for n in range(most, -1, -1) if n == 0 or capacity.fits([offer] * n, 0, costs))
    assert ours >= 0.9 * most
    assert not capacity.fits([offer] * (most + 1), 0, costs)


def upper_bound(costs: Costs, steps: int, in_flight: int) -> int:
    """Sessions whose rows of one period fit into it, in the fewest forwards that there can be.

    Each needs `steps` rows a period; one chunk in flight takes them in as many forwards. Whatever
    the order, it takes that long, so no search over orders can find more.
    """
    forwards = steps if in_flight == 1 else 1
    left_s = 0.25 - forwards * costs.denoise.fixed_s
    return int(left_s / (steps * costs.denoise.per_unit_s) + 1e-9)


def test_who_is_refused_is_told_when_to_try_again() -> None:
    governor = Governor(Capacity(max_rows=64, cache_rows=64))
    offer, costs = Offer(SERVICE, (demand(2, 2),)), Costs(LatencyFit(0.01, 0.04))
    inside: list[Offer] = []
    while (answer := governor.admit(5.0, offer, inside, costs)).verdict is not Verdict.REFUSED:
        inside.append(offer)
    assert inside
    assert answer.retry_s is not None
    assert answer.retry_s > 5.0


def test_who_could_not_be_served_alone_is_not_told_to_wait() -> None:
    governor = Governor(Capacity(max_rows=64, cache_rows=64))
    answer = governor.admit(0.0, Offer(SERVICE, (demand(2, 2),)), [], Costs(LatencyFit(0.1, 0.3)))
    assert (answer.verdict, answer.retry_s) == (Verdict.REFUSED, None)


def test_memory_counts_as_time_does_and_the_ladder_answers_it() -> None:
    """Rows for three sessions at two steps are rows for six at one."""
    governor = Governor(Capacity(max_rows=64, cache_rows=6))
    offer = Offer(SERVICE, (demand(2, 2), demand(1, 1)))
    costs = Costs(LatencyFit(0.001, 0.001))
    verdicts = [governor.admit(0.0, offer, [offer] * n, costs).verdict for n in range(7)]
    full, lower, refused = Verdict.FULL, Verdict.LOWER, Verdict.REFUSED
    assert verdicts == [full] * 3 + [lower] * 3 + [refused]


def test_a_day_of_a_cluster_counts_everybody() -> None:
    workload = Workload(sessions=1, gpus=40, stay_s=120, fps=(16.0, 24.0))
    day = simulate_day(workload, num_sessions=5_000, seconds=3_000.0)
    assert day.num_full + day.num_lower + day.num_refused == day.num_asked == 5_000
    assert day.num_rehearsals < 500
    assert day == simulate_day(workload, num_sessions=5_000, seconds=3_000.0)


def test_curves_are_one_well_formed_picture() -> None:
    from xml.etree import ElementTree

    rows = [(4, [outcome("steady", place) for place in range(len(SCHEMES))])] * 2
    root = ElementTree.fromstring(draw(rows, title="a < b & c"))
    assert len(root.findall(".//{*}polyline")) == 4 * len(SCHEMES)


def test_what_a_kind_leaves_out_is_as_the_workload_says() -> None:
    kinds = [{"latency_s": 0.5, "weight": 2}, {"latency_s": 0, "chunk_frames": 3}]
    table = {"sessions": 3, "first_frame_s": 1.5, "fps": [8], "kinds": kinds}
    workload = workload_of(table, origin="evening.toml")
    assert workload.kinds == (
        Kind(fps=8.0, latency_s=0.5, first_frame_s=1.5, weight=2.0),
        Kind(fps=8.0, latency_s=0.0, first_frame_s=1.5, chunk_frames=3),
    )
    assert [kind for _, _, kind in workload.arrivals()].count(workload.kinds[0]) == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "nobody comes"),
        ({"sesions": 3}, "did you mean sessions"),
        ({"sessions": "3"}, "sessions must be a int"),
        ({"sessions": 1, "hardware": "abacus"}, "no hardware profile"),
        ({"sessions": 1, "latency_s": 0.1}, "impossible"),
        ({"sessions": -1}, "must be in"),
        ({"sessions": 1, "fps": []}, "names no rate"),
        ({"sessions": 1, "kinds": 3}, "kinds must be tables"),
        (
            {"sessions": 1, "kinds": [{"latncy_s": 1}]},
            "^evening.toml: kind 1: unknown key latncy_s; did you mean",
        ),
        ({"sessions": 1, "kinds": [{"fps": "16"}]}, "kind 1: fps must be a float"),
        ({"sessions": 1, "kinds": [{"chunk_frames": 0}]}, "chunk_frames = 0 must be in"),
        ({"sessions": 1, "kinds": [{}], "fps": [8, 16]}, "several rates beside kinds"),
    ],
)
def test_a_wrong_workload_is_refused_in_one_line(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        workload_of(table, origin="evening.toml")
    assert "\n" not in str(caught.value)
