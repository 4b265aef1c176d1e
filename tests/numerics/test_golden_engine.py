"""Recorded rollouts of the reference code, replayed through the engine's own classes.

Each case compares latents and the cache's contents at 2e-5 absolute: float noise is about 2e-6, and
the smallest semantic mistake seen moves a result by 5.4e-4 (tests/golden/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.rows import RowPool
from streamgen.cache.window import Positions
from streamgen.clock import SimulatedClock
from streamgen.diffusion.flow import mix_input
from streamgen.diffusion.guidance import Guidance
from streamgen.diffusion.noise import NoiseSource, RecordedNoise
from streamgen.diffusion.schedule import Ladder, NoiseSchedule
from streamgen.engine.batch import Level, Started
from streamgen.engine.collaborators import ChunkStarter
from streamgen.engine.engine import Engine
from streamgen.engine.executor import LocalExecutor
from streamgen.engine.lanes import InOrder
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.session import Session
from streamgen.engine.slots import DenoiseSlots
from streamgen.engine.stage import Stage
from streamgen.metrics.export import Metrics
from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.dit import WanDiT
from streamgen.ops.rope import TokenGrid
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from streamgen.types import Clip

TOLERANCE = 2e-5
GRID = TokenGrid(4, 6)
GoldenCase = Callable[[str], tuple[dict[str, Tensor], dict[str, object]]]


class LatentStarter:
    """Chunks whose start is recorded: noisy latents and the level that the model is told."""

    waiting_clips = 0

    def __init__(self, chunks: list[Tensor], levels: list[Level | None]) -> None:
        self._chunks = chunks
        self._levels = levels
        self._num_started = 0

    def ready(self) -> bool:
        return not self.has_ended()

    def has_ended(self) -> bool:
        return self._num_started == len(self._chunks)

    def drop(self, num_clips: int) -> None:
        raise AssertionError("nothing is dropped here")

    def start(self, chunk: int) -> Started:
        self._num_started += 1
        return Started(self._chunks[chunk], None, None, self._levels[chunk], 0.0, 0.0, 0)


@dataclass
class LatentDecoder:
    """Keeps the clean latents of every chunk instead of drawing them."""

    latents: list[Tensor] = field(default_factory=list)

    def decode(
        self, latents_FCHW: Tensor | None, *, num_frames: int, pts_s: float, captured_s: float
    ) -> NoClip:
        assert latents_FCHW is not None
        self.latents.append(latents_FCHW.clone())
        return NoClip()


class NoClip:
    def has_arrived(self) -> bool:
        return True

    def device_s(self) -> float | None:
        return None

    def wait(self) -> Clip:
        raise AssertionError("there are no pictures here")


def golden_dit(golden_case: GoldenCase) -> WanDiT:
    weights, _ = golden_case("dit_weights_tiny")
    config = WanConfig(
        in_dim=16,
        out_dim=16,
        dim=96,
        ffn_dim=192,
        freq_dim=32,
        text_dim=64,
        text_len=16,
        num_heads=6,
        num_blocks=3,
        patch_height=2,
        patch_width=2,
        eps=1e-6,
    )
    model = WanDiT(config)
    model.load_state_dict(weights)
    return model.eval()


@dataclass
class Rollout:
    cache: KVCache
    session: Session
    latents: list[Tensor]


def roll_out(
    model: WanDiT,
    recipe: Recipe,
    starter: ChunkStarter,
    noise: NoiseSource,
    text: Tensor,
    policy: Policy,
) -> Rollout:
    """Run a session to its end on the local executor."""
    clock = SimulatedClock()
    rows = recipe.num_cache_rows
    shape = CacheShape(3, rows, recipe.sinks + recipe.ring, 6, 16, GRID)
    cpu = torch.device("cpu")
    cache = KVCache(shape, recipe.positions, device=cpu, dtype=torch.float32)
    stage = Stage(model, cache, device=cpu)
    executor = LocalExecutor(stage, DenoiseSlots(model.facts, noise), InOrder(clock))
    engine = Engine(
        executor, policy, rows=RowPool(rows), max_rows=16, clock=clock, metrics=Metrics(clock)
    )
    prompt = engine.add_prompt(text)
    decoder = LatentDecoder()
    session = engine.open(
        recipe,
        make_starter=lambda: starter,
        decoder=decoder,
        seed=0,
        prompt=prompt,
        negative_prompt=prompt,
        max_waiting_clips=1000,
    )
    while not session.has_ended:
        engine.tick()
    return Rollout(cache, session, decoder.latents)


@pytest.mark.parametrize("policy", [StreamBatch(), Sequential()])
def test_clean_mode_equals_self_forcing(golden_case: GoldenCase, policy: Policy) -> None:
    """Seven chunks of three latent frames, four steps and a clean pass each, global attention."""
    inputs, _ = golden_case("B_selfforcing_inputs")
    expected, _ = golden_case("B_selfforcing_global")
    schedule = NoiseSchedule(5.0)
    recipe = Recipe(
        ladder=Ladder.warped(schedule, [1000, 750, 500, 250]),
        mode=CacheMode.CLEAN,
        context_level=Level(0.0, 0.0),
        sinks=0,
        ring=21,
        positions=Positions.ABSOLUTE,
        chunk_frames=3,
        first_chunk_frames=3,
        first_chunk_is_alone=False,
        guidance=Guidance(),
    )
    chunks = list(inputs["noise"][0].split(3))
    draws = {(c, s + 1): inputs["renoise"][c, s] for c in range(7) for s in range(3)}
    starter = LatentStarter(chunks, [None] * 7)
    rollout = roll_out(
        golden_dit(golden_case),
        recipe,
        starter,
        RecordedNoise(draws),
        inputs["prompt_embeds"][0],
        policy,
    )
    latents = torch.cat(rollout.latents)
    torch.testing.assert_close(latents, expected["latents"][0], atol=TOLERANCE, rtol=0)
    cached = rollout.cache.snapshot(0, 21)
    for name, layer, part in (("kv0_k", 0, 0), ("kv0_v", 0, 1), ("kv2_k", 2, 0)):
        torch.testing.assert_close(cached[layer, part], expected[name][0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("policy", [StreamBatch(), Sequential()])
def test_per_step_mode_equals_stream_diffusion_v2(golden_case: GoldenCase, policy: Policy) -> None:
    """Video-to-video with two steps: 3 sink and 3 ring cells, the first chunk walks alone."""
    case, meta = golden_case("C_stream_v2v_2step")
    calls = meta["calls"]
    assert isinstance(calls, list)
    schedule = NoiseSchedule(8.0)
    recipe = Recipe(
        ladder=Ladder.plain(schedule, [700, 500]),
        mode=CacheMode.PER_STEP,
        context_level=Level(0.0, 0.0),
        sinks=3,
        ring=3,
        positions=Positions.ABSOLUTE,
        chunk_frames=1,
        first_chunk_frames=2,
        first_chunk_is_alone=True,
        guidance=Guidance(),
    )
    clean = case["latents_in"][0]
    chunks = [mix_input(clean[:2], case["mix_noise_first"][0], 0.7)]
    levels: list[Level | None] = [None]
    for number, call in enumerate(calls):
        chunks.append(
            mix_input(
                clean[2 + number : 3 + number], case["mix_noise"][number], call["noise_scale"]
            )
        )
        told = float(call["current_step"])
        levels.append(Level(told, schedule.sigma_at(told)))
    draws = {(0, 1): case["prepare_renoise"][0]}
    # A chunk enters step 1 at the end of the call that was its first.
    draws |= {(number + 1, 1): case["renoise"][number, 0] for number in range(len(calls))}
    rollout = roll_out(
        golden_dit(golden_case),
        recipe,
        LatentStarter(chunks, levels),
        RecordedNoise(draws),
        case["prompt_embeds"][0],
        policy,
    )
    close = {"atol": TOLERANCE, "rtol": 0}
    torch.testing.assert_close(torch.stack(chunks[1:]), case["chunk_inputs"], **close)
    torch.testing.assert_close(rollout.latents[0], case["first_output"][0], **close)
    # The reference's first call gives junk from an empty row; its last chunk never leaves.
    for ours, theirs in zip(rollout.latents[1:], case["outputs_last_row"][1:], strict=False):
        torch.testing.assert_close(ours, theirs, **close)
    cached = rollout.cache.snapshot(0, 6)
    torch.testing.assert_close(cached[0, 0], case["kv0_k"][0], **close)
    torch.testing.assert_close(cached[0, 1], case["kv0_v"][0], **close)
