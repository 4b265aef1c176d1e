"""Heads that see their own chunk only: found, written down, put in order, kept from the past."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from streamgen.cache.heads import HeadMeter
from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.placement import Positions
from streamgen.cache.window import RollingWindow
from streamgen.engine.recipe import CacheMode
from streamgen.errors import CheckpointError
from streamgen.models.full_sequence import forward_full
from streamgen.models.heads import (
    PresentHeads,
    choose_present,
    order_heads,
    read_heads,
    write_heads,
)
from streamgen.models.wan.dit import WanDiT
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.quantise import KVFormat
from streamgen.scheduling.policy import Sequential, StreamBatch
from tests.small_engine import CPU, GRID, SmallEngine, small_dit, small_recipe, text
from tests.unit.cache.test_kv import TIMESTEP, forward, latents

MODEL = small_dit()
BOTH = PresentHeads(2, ((0,), ()))
CLOSE = {"atol": 1e-5, "rtol": 0}


def cache_of(
    model: WanDiT,
    num_past: tuple[int, ...] | None,
    *,
    positions: Positions = Positions.ABSOLUTE,
    operations: Operations = PLAIN,
    kind: KVFormat = KVFormat.FULL,
) -> KVCache:
    facts = model.facts
    shape = CacheShape(facts.num_blocks, 1, 4, facts.num_heads, facts.head_dim, GRID)
    return KVCache(
        shape, positions, device=CPU, dtype=torch.float32, operations=operations,
        num_past=num_past, kind=kind,
    )  # fmt: skip


def play(model: WanDiT, cache: KVCache, num_frames: int = 6) -> Tensor:
    window = RollingWindow(sinks=1, ring=3, positions=cache._positions)
    inputs = latents(0, num_frames)[None]
    frames = [
        forward(model, cache, [0], [window], frame, inputs[:, frame : frame + 1])
        for frame in range(num_frames)
    ]
    return torch.cat(frames, dim=1)


def test_the_share_that_stays_most_in_the_chunk_is_chosen() -> None:
    shares = torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.8, 0.7]])
    assert choose_present(shares, 0.5) == PresentHeads(3, ((0,), (1, 2)))
    assert choose_present(shares, 0.0).by_block == ((), ())
    assert choose_present(shares, 1.0).num_past == (0, 0)


def test_attention_that_looks_everywhere_alike_is_measured_so() -> None:
    """With queries of zero each of four cells gets a quarter; two of them are the chunk."""
    meter = HeadMeter(num_layers=1, num_heads=2, num_cells=4)
    q, k = torch.zeros(1, 8, 2, 4), torch.randn(1, 16, 2, 4)
    with pytest.raises(ValueError, match="no full window"):
        meter.shares()
    meter.observe(0, q, k[:, :12], torch.tensor([[1, 2]]))  # not full: left out
    meter.observe(0, q, k, torch.tensor([[3, 1]]))
    torch.testing.assert_close(meter.shares(), torch.full((1, 2), 0.5, dtype=torch.float64))


def test_heads_in_another_order_compute_the_same() -> None:
    ordered = small_dit()
    order_heads(ordered, BOTH)
    name = "blocks.0.self_attn.q.weight"
    assert not torch.equal(ordered.get_parameter(name), MODEL.get_parameter(name))
    results = [
        forward_full(
            model,
            latents(0, 3)[None],
            torch.full((1, 3), TIMESTEP),
            text(1)[None],
            positions_BF=torch.arange(3)[None],
        )
        for model in (MODEL, ordered)
    ]
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.parametrize("positions", list(Positions))
def test_where_no_head_sees_the_past_frames_do_not_depend_on_it(positions: Positions) -> None:
    """Each frame's output is that of a forward over itself alone; where it stands does not matter,
    for rotations are relative."""
    found = play(MODEL, cache_of(MODEL, (0, 0), positions=positions))
    for frame, chunk in enumerate(latents(0, 6)):
        alone = forward_full(
            MODEL,
            chunk[None, None],
            torch.full((1, 1), TIMESTEP),
            text(1)[None],
            positions_BF=torch.zeros((1, 1), dtype=torch.int64),
        )
        torch.testing.assert_close(found[:, frame : frame + 1], alone, **CLOSE)


@pytest.mark.parametrize("kind", [KVFormat.FULL, KVFormat.INT8])
@pytest.mark.parametrize("positions", list(Positions))
def test_heads_that_see_the_past_see_what_they_saw(positions: Positions, kind: KVFormat) -> None:
    """In a model of one block keys do not depend on attention, so the first head's is as before;
    the second one's is over as many keys as the chunk has."""
    model = small_dit(num_blocks=1)
    seen: list[list[Tensor]] = [[], []]
    keys: list[int] = []

    def spying(into: list[Tensor]) -> Operations:
        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            into.append(PLAIN.attention(q, k, v))
            keys.append(k.shape[1])
            return into[-1]

        return replace(PLAIN, attention=attention)

    for num_past, into in ((None, seen[0]), ((1,), seen[1])):
        operations = spying(into)
        play(
            model, cache_of(model, num_past, positions=positions, operations=operations, kind=kind)
        )
    own, past = seen[1][0::2], seen[1][1::2]
    assert [one.shape[2] for one in own + past] == [1] * 12
    assert keys[6::2] == [GRID.num_tokens] * 6
    for whole, part in zip(seen[0], past, strict=True):
        torch.testing.assert_close(part, whole[:, :, :1], **CLOSE)


@pytest.mark.parametrize("mode", [CacheMode.CLEAN, CacheMode.RECOMPUTE, CacheMode.PER_STEP])
def test_the_schedule_does_not_show_where_heads_are_kept_from_the_past(mode: CacheMode) -> None:
    """Also with several groups of frames in one forward, as a recomputed context has."""
    recipe = small_recipe(mode=mode, positions=Positions.WINDOW, chunk_frames=1)

    def rig(*, is_sequential: bool) -> SmallEngine:
        policy = Sequential() if is_sequential else StreamBatch()
        return SmallEngine(policy, positions=Positions.WINDOW, num_past=(1, 0))

    together = rig(is_sequential=False)
    streams = [together.open(recipe, seed=seed, max_chunks=6) for seed in (1, 2)]
    together.finish(*streams)
    for seed, stream in zip((1, 2), streams, strict=True):
        other = rig(is_sequential=True)
        alone = other.open(recipe, seed=seed, max_chunks=6)
        other.finish(alone)
        torch.testing.assert_close(torch.cat(stream.latents), torch.cat(alone.latents), **CLOSE)


def test_a_file_of_heads_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    write_heads(path, BOTH, {"share": 0.25})
    assert read_heads(path, MODEL.facts) == BOTH


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not a file of scripts/calibrate_heads.py"),
        ('{"format": "other"}', "its format is 'other'"),
        ('{"format": "streamgen-heads/1", "num_heads": 2, "present": 5}', "not a file of"),
        ('{"format": "streamgen-heads/1", "num_heads": 2, "present": [[0]]}', "1 blocks and 2"),
        ('{"format": "streamgen-heads/1", "num_heads": 4, "present": [[], []]}', "2 and 2"),
        ('{"format": "streamgen-heads/1", "num_heads": 2, "present": [[7], []]}', "calibrate this"),
    ],
)
def test_a_file_that_is_not_of_this_model_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "heads.json"
    path.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_heads(path, MODEL.facts)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
