"""A replayed forward gives what the written one gives; only what comes again is recorded."""

from collections.abc import Callable

import pytest
import torch

from streamgen.cache.kv import CachePlan
from streamgen.cache.window import Positions
from streamgen.engine.forward import (
    RUNS_BEFORE_ANOTHER,
    AsWritten,
    CallAgain,
    Replayed,
    StageInputs,
    flatten,
    rebuild,
)
from streamgen.engine.prompts import PromptBank
from streamgen.engine.recipe import CacheMode
from streamgen.models.base import Conditioning
from streamgen.ops.rope import TokenGrid, rope_table
from streamgen.scheduling.policy import StreamBatch
from streamgen.types import PromptId
from tests.small_engine import SmallEngine, small_dit, small_recipe, text


def latents_of(runner: AsWritten | Replayed, mode: CacheMode) -> list[torch.Tensor]:
    """Two sessions under two prompts; one changes its prompt on the way."""
    rig = SmallEngine(StreamBatch(), positions=Positions.WINDOW, runner=runner)
    recipe = small_recipe(steps=2, mode=mode, positions=Positions.WINDOW)
    streams = [
        rig.open(recipe, seed=seed, prompt=rig.prompt(seed), max_chunks=12 + seed)
        for seed in range(2)
    ]
    rig.tick(9)
    other = rig.prompt(5)
    rig.engine.set_prompt(streams[0].session, other)
    rig.engine.drop_prompt(other)
    rig.finish(*streams)
    return [latent for stream in streams for latent in stream.latents]


@pytest.mark.parametrize("mode", list(CacheMode))
def test_replayed_streams_are_the_written_ones(mode: CacheMode) -> None:
    """Exactly: the same arithmetic on fixed buffers. Prompts, positions and rows all change."""
    replayed = Replayed(CallAgain())
    found = latents_of(replayed, mode)
    assert replayed.num_recordings >= 1
    for one, other in zip(found, latents_of(AsWritten(), mode), strict=True):
        assert torch.equal(one, other)


def test_no_more_recordings_are_kept_than_allowed() -> None:
    replayed = Replayed(CallAgain(), capacity=1)
    latents_of(replayed, CacheMode.CLEAN)
    assert replayed.num_recordings == 1


@pytest.mark.parametrize(("seen_before", "num_recordings"), [(3, 1), (4, 0)])
def test_a_layout_is_recorded_when_it_has_come_often_enough(
    seen_before: int, num_recordings: int
) -> None:
    table = rope_table(torch.tensor([[0]]), TokenGrid(2, 2), 12)
    cond = Conditioning(torch.zeros(1), torch.zeros(1), {}, {})
    replayed = Replayed(CallAgain(), seen_before=seen_before)
    for number in range(4):
        plan = CachePlan(torch.zeros(1, 1), torch.zeros(1, 1), None, table, ())
        inputs = StageInputs(torch.full((2,), float(number)), cond, plan)
        doubled = replayed.run(lambda one: one.incoming * 2, inputs)
        assert torch.equal(doubled, inputs.incoming * 2)
    assert replayed.num_recordings == num_recordings


class Counted(CallAgain):
    num_records = 0

    def record(
        self, function: Callable[[], torch.Tensor]
    ) -> tuple[Callable[[], None], torch.Tensor]:
        self.num_records += 1
        return super().record(function)


def test_layouts_that_take_turns_do_not_push_each_other_out_at_every_tick() -> None:
    """Three of them, with room for two recordings: one is as good as written, most of the time."""
    recorder = Counted()
    replayed = Replayed(recorder, capacity=2)
    cond = Conditioning(torch.zeros(1), torch.zeros(1), {}, {})
    table = rope_table(torch.tensor([[0]]), TokenGrid(2, 2), 12)
    for number in range(600):
        plan = CachePlan(torch.zeros(1, 1), torch.zeros(1, 1 + number % 3), None, table, ())
        inputs = StageInputs(torch.full((2,), float(number)), cond, plan)
        doubled = replayed.run(lambda one: one.incoming * 2, inputs)
        assert torch.equal(doubled, inputs.incoming * 2)
    assert 2 < recorder.num_records <= 2 + 600 // RUNS_BEFORE_ANOTHER


def test_a_layout_says_everything_but_what_tensors_hold() -> None:
    """Equal layouts for other positions of the same shape, another one for another shape."""
    tables = [rope_table(torch.tensor([p]), TokenGrid(2, 2), 12) for p in ([0], [7], [0, 1])]
    layouts = [flatten((3, {"a": table, "b": slice(0, 2)}), []) for table in tables]
    assert layouts[0] == layouts[1] != layouts[2]
    assert flatten((4, {"a": tables[0], "b": slice(0, 2)}), []) != layouts[0]


def test_a_value_is_rebuilt_around_other_tensors() -> None:
    first, second = (rope_table(torch.tensor([[p]]), TokenGrid(2, 2), 12) for p in (0, 9))
    tensors: list[torch.Tensor] = []
    flatten(second, tensors)
    made = rebuild(first, iter(tensors))
    assert made.cos_BL1P is second.cos_BL1P
    assert made.phase_BL1P is second.phase_BL1P


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_reads_its_buffers_anew_at_each_replay() -> None:
    from streamgen.engine.compile import CudaRecorder

    source = torch.arange(8.0, device="cuda")
    replay, result = CudaRecorder().record(lambda: source * 2)
    source.copy_(torch.ones(8, device="cuda"))
    replay()
    assert torch.equal(result.cpu(), torch.full((8,), 2.0))


def test_prompts_are_gathered_once_for_a_batch_that_shares_one() -> None:
    """A prompt that has been dropped and comes again is another one."""
    bank = PromptBank(small_dit(), range(2))
    first, second = PromptId(1), PromptId(2)
    for prompt in (first, second):
        bank.add(prompt, text(prompt))
    shared = bank.gather([first, first])
    assert bank.gather([first, first]) is shared
    assert bank.gather([first]) is not shared
    mixed = bank.gather([first, second])
    assert mixed[1].k_BMNE.shape[0] == 2
    assert torch.equal(mixed[1].k_BMNE[:1], bank.gather([first])[1].k_BMNE)
    bank.drop(first)
    bank.add(first, text(3))
    again = bank.gather([first])[0].k_BMNE
    assert not torch.equal(again, shared[0].k_BMNE[:1])
