"""The number of threads is a matter of measured times alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from streamgen import Host
from streamgen.clock import SimulatedClock
from streamgen.serving import threads
from streamgen.serving.threads import best_of, timed

SMALL = ("picture.height=64", "picture.width=64")
candidates = threads.candidates  # before the tests' own takes its place


@pytest.fixture
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cores", "tried"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (4, (1, 2, 4)), (16, (1, 8, 16))]
)
def test_one_thread_and_half_of_the_cores_and_all_are_tried(
    cores: int, tried: tuple[int, ...]
) -> None:
    assert candidates(cores) == tried


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 0.6}, 2),  # an idle machine
        ({1: 2.0, 2: 14.0}, 1),  # two busy neighbours
        ({1: 1.0, 2: 0.9}, 1),  # not worth a core
        ({1: 1.0, 4: 0.5, 8: 0.3}, 8),
        ({1: 1.0, 4: 0.5, 8: 0.45}, 4),
        ({1: 1.0, 4: 0.9, 8: 0.7}, 8),
        ({1: 0.0, 2: 0.0}, 1),  # a clock that stands still
    ],
)
def test_more_threads_are_taken_only_where_they_are_worth_it(
    seconds: Mapping[int, float], best: int
) -> None:
    assert best_of(seconds) == best


def test_a_trial_that_the_system_disturbed_does_not_decide() -> None:
    clock, in_use, num_trials = SimulatedClock(), [0], [0]
    cost = {1: 0.010, 2: 0.006}

    def use(count: int) -> None:
        in_use[0] = count
        num_trials[0] += 1

    def work() -> None:
        clock.sleep(cost[in_use[0]] * (30 if num_trials[0] == 4 else 1))

    assert timed((1, 2), use, work, clock) == pytest.approx(cost)


def test_a_trial_ends_on_a_clock_that_stands_still() -> None:
    calls: list[int] = []
    seconds = timed((1, 2), lambda count: None, lambda: calls.append(1), SimulatedClock())
    assert seconds == {1: 0.0, 2: 0.0}
    assert len(calls) == 2 * threads.ROUNDS * (1 + threads.MAX_CALLS)


@pytest.mark.usefixtures("threads_as_before")
@pytest.mark.parametrize("preset", ["tiny-cpu", "tiny-cpu-v2v"])
def test_a_host_runs_on_what_the_trial_found_and_its_settings_say_so(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "candidates", lambda cores: (1, 3))
    monkeypatch.setattr(threads, "best_of", lambda seconds: max(seconds))
    with Host(preset, overrides=SMALL) as host:
        assert torch.get_num_threads() == 3
        assert host.pipeline.config.model.num_threads == 3


@pytest.mark.usefixtures("threads_as_before")
def test_a_number_that_is_given_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> int:
        raise AssertionError("tried")

    monkeypatch.setattr("streamgen.serving.build.settle_threads", never)
    with Host("tiny-cpu", overrides=(*SMALL, "model.num_threads=2")) as host:
        assert torch.get_num_threads() == 2
        assert host.pipeline.config.model.num_threads == 2
