"""Latents in flight: what a model's output means, and what a chunk keeps between its steps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from streamgen.cache.window import Placement
from streamgen.diffusion.guidance import Guidance
from streamgen.diffusion.noise import SeededNoise
from streamgen.engine.batch import Level, Row, SlotKey, Started
from streamgen.engine.slots import DenoiseSlots
from streamgen.models.base import DiTFacts, Prediction
from streamgen.ops.flow_step import flow_step
from streamgen.ops.operations import PLAIN
from streamgen.scheduling.plan import Pass
from streamgen.scheduling.policy import StreamBatch
from streamgen.types import PromptId, SessionId
from tests.small_engine import SmallEngine, small_recipe

SHAPE = (2, 3, 4, 4)
FACTS = DiTFacts(
    num_blocks=1,
    num_heads=1,
    head_dim=4,
    latent_channels=3,
    condition_channels=3,
    text_len=1,
    text_dim=1,
    prediction=Prediction.CHANGE,
)


def last_row(session: int) -> Row:
    """The last step of a chunk of two latent frames."""
    return Row(
        where=Pass(SessionId(session), 0, 0),
        level=Level(500.0, 0.5),
        next_sigma=None,
        cache_row=session,
        placement=Placement((0, 1), 2, (0, 1), (0, 1)),
        prompt=PromptId(0),
        seed=0,
        guidance=Guidance(),
        is_context=False,
        is_negative=False,
        is_final=True,
    )


def slots_with(facts: DiTFacts, conditions: list[Tensor | None]) -> DenoiseSlots:
    slots = DenoiseSlots(facts, SeededNoise())
    for session, condition in enumerate(conditions):
        started = Started(torch.randn(SHAPE), condition, None, None, 0.0, 0.0, 8)
        slots.admit(SlotKey(SessionId(session), 0), started)
    return slots


def test_a_predicted_change_is_added_to_the_condition_of_its_own_row() -> None:
    """Rows with a condition get it back under the change; rows without one are the change."""
    condition = torch.randn(SHAPE)
    rows = [last_row(0), last_row(1)]
    predicted = torch.randn(2, *SHAPE)
    finished = slots_with(FACTS, [condition, None]).advance(rows, predicted)
    assert torch.equal(finished[rows[0].key], predicted[0] + condition)
    assert torch.equal(finished[rows[1].key], predicted[1])


def test_predicted_clean_latents_are_taken_as_they_are() -> None:
    facts = replace(FACTS, prediction=Prediction.CLEAN)
    predicted = torch.randn(1, *SHAPE)
    finished = slots_with(facts, [torch.randn(SHAPE)]).advance([last_row(0)], predicted)
    assert torch.equal(finished[last_row(0).key], predicted[0])


def test_the_model_reads_the_condition_behind_the_noisy_latents() -> None:
    condition = torch.randn(SHAPE)
    inputs = slots_with(FACTS, [condition, None]).inputs([last_row(0), last_row(1)])
    assert torch.equal(inputs[0, :, 3:], condition)
    assert torch.equal(inputs[1, :, 3:], torch.zeros(SHAPE))


def test_a_finished_chunk_is_forgotten() -> None:
    slots = slots_with(FACTS, [None])
    slots.advance([last_row(0)], torch.randn(1, *SHAPE))
    assert len(slots) == 0


def test_one_operation_for_a_whole_batch_takes_the_same_steps() -> None:
    """In float32 instead of float64, rows at several levels and of several sessions together."""
    found: list[Tensor] = []
    for operations in (PLAIN, replace(PLAIN, flow_step=flow_step)):
        rig = SmallEngine(StreamBatch(), operations=operations)
        streams = [rig.open(small_recipe(steps=4), seed=seed, max_chunks=3) for seed in (1, 2)]
        rig.finish(*streams)
        found.append(torch.cat([one for stream in streams for one in stream.latents]))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)
    assert not torch.equal(found[1], found[0])
