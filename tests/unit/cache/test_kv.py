"""Cached attention against slow oracles, in float32 on small random models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streamgen.cache.kv import CacheShape, KVCache
from streamgen.cache.window import Positions, RollingWindow
from streamgen.models.full_sequence import forward_full
from streamgen.models.wan.dit import WanDiT
from streamgen.ops.operations import PLAIN, Operations
from tests.slow_rollout import SlowRow
from tests.small_engine import CHANNELS, CPU, GRID, NOISE, SIZE, small_dit, small_recipe, text

CLOSE = {"atol": 1e-5, "rtol": 0}
MODEL = small_dit()
TIMESTEP = 600.0


def new_cache(
    model: WanDiT,
    positions: Positions,
    *,
    rows: int,
    cells: int,
    operations: Operations = PLAIN,
) -> KVCache:
    facts = model.facts
    shape = CacheShape(facts.num_blocks, rows, cells, facts.num_heads, facts.head_dim, GRID)
    return KVCache(shape, positions, device=CPU, dtype=torch.float32, operations=operations)


def latents(seed: int, num_frames: int) -> Tensor:
    return NOISE.noise(seed, 0, 0, (num_frames, CHANNELS, SIZE, SIZE))


def forward(
    model: WanDiT,
    cache: KVCache,
    rows: list[int],
    windows: list[RollingWindow],
    first_frame: int,
    chunks_BFCHW: Tensor,
) -> Tensor:
    """One forward of a chunk in each of these rows."""
    num_frames = chunks_BFCHW.shape[1]
    plan = cache.prepare(rows, [window.place(first_frame, num_frames) for window in windows])
    embedded = model.embed_text(text(1)[None].expand(len(rows), -1, -1))
    blocks = range(model.facts.num_blocks)
    timesteps = torch.full(chunks_BFCHW.shape[:2], TIMESTEP)
    cond = model.condition(timesteps, tuple(model.text_kv(i, embedded) for i in blocks))
    hidden = model.embed(chunks_BFCHW)
    for index in blocks:
        hidden = model.block(index, hidden, cond, cache.layer(index, plan))
    return model.head(hidden, cond, GRID)


def stream(
    cache: KVCache, rows: list[int], *, sinks: int, ring: int, size: int, num_chunks: int
) -> Tensor:
    """A stream of its own in each row; outputs [row, frame, C, H, W]."""
    positions = cache._positions
    windows = [RollingWindow(sinks=sinks, ring=ring, positions=positions) for _ in rows]
    inputs = [latents(row, size * num_chunks).split(size) for row in rows]
    outputs = [
        forward(
            MODEL, cache, rows, windows, size * number, torch.stack([i[number] for i in inputs])
        )
        for number in range(num_chunks)
    ]
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("positions", list(Positions))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_cache_that_keeps_all_equals_one_forward_over_everything(
    positions: Positions, size: int
) -> None:
    """Chunk after chunk over the cache is one full-sequence forward under the block-causal mask."""
    num_frames = 6
    cache = new_cache(MODEL, positions, rows=2, cells=num_frames)
    cached = stream(cache, [0, 1], sinks=2, ring=4, size=size, num_chunks=num_frames // size)
    chunk_of = torch.arange(num_frames) // size
    full = forward_full(
        MODEL,
        torch.stack([latents(row, num_frames) for row in (0, 1)]),
        torch.full((2, num_frames), TIMESTEP),
        text(1)[None].expand(2, -1, -1),
        positions_BF=torch.arange(num_frames)[None].expand(2, -1),
        mask_FF=chunk_of[:, None] >= chunk_of[None],
    )
    torch.testing.assert_close(cached, full, **CLOSE)


@pytest.mark.parametrize("positions", list(Positions))
@pytest.mark.parametrize(("sinks", "ring", "size"), [(0, 2, 1), (1, 3, 2), (2, 3, 3), (3, 4, 1)])
def test_a_window_of_one_layer_equals_a_forward_over_its_frames(
    positions: Positions, sinks: int, ring: int, size: int
) -> None:
    """With one block, keys depend on their own frame alone: each chunk's output is that of a full
    forward over exactly the frames in the window, at absolute or window positions."""
    model = small_dit(num_blocks=1)
    cache = new_cache(model, positions, rows=1, cells=sinks + ring)
    window = RollingWindow(sinks=sinks, ring=ring, positions=positions)
    inputs_FCHW = latents(3, 5 * size)
    for number in range(5):
        chunk = inputs_FCHW[number * size : (number + 1) * size]
        cached = forward(model, cache, [0], [window], number * size, chunk[None])
        frames = list(window.frames())
        places = frames if positions is Positions.ABSOLUTE else range(len(frames))
        full = forward_full(
            model,
            inputs_FCHW[frames][None],
            torch.full((1, len(frames)), TIMESTEP),
            text(1)[None],
            positions_BF=torch.tensor([list(places)]),
        )
        torch.testing.assert_close(cached[0], full[0, -size:], **CLOSE)


@pytest.mark.parametrize("positions", list(Positions))
@pytest.mark.parametrize(("sinks", "ring", "size"), [(0, 2, 1), (1, 3, 2), (2, 3, 3)])
def test_a_window_of_several_layers_equals_lists(
    positions: Positions, sinks: int, ring: int, size: int
) -> None:
    """Deeper keys remember the context in which they were computed, even of frames that have gone:
    a cache of Python lists, computed alongside, says what they are."""
    cache = new_cache(MODEL, positions, rows=1, cells=sinks + ring)
    recipe = small_recipe(sinks=sinks, ring=ring, chunk_frames=size, positions=positions)
    slow = SlowRow(MODEL, recipe)
    cached = stream(cache, [0], sinks=sinks, ring=ring, size=size, num_chunks=6)[0]
    for number, chunk in enumerate(latents(0, 6 * size).split(size)):
        expected = slow.forward(
            chunk, timestep=TIMESTEP, text_MD=text(1), first_frame=number * size
        )
        got = cached[number * size : (number + 1) * size]
        torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize("positions", list(Positions))
@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 2, 4], [1, 2, 4], [3, 1, 0], [4, 3, 2]])
def test_rows_may_lie_anywhere(positions: Positions, rows: list[int]) -> None:
    """In one run, in several or in falling order: each row computes what it computes alone."""
    cache = new_cache(MODEL, positions, rows=5, cells=4)
    together = stream(cache, rows, sinks=1, ring=3, size=1, num_chunks=6)
    for index, row in enumerate(rows):
        other = new_cache(MODEL, positions, rows=5, cells=4)
        alone = stream(other, [row], sinks=1, ring=3, size=1, num_chunks=6)
        torch.testing.assert_close(together[index], alone[0], **CLOSE)
        torch.testing.assert_close(cache.snapshot(row, 4), other.snapshot(row, 4), **CLOSE)
    untouched = set(range(5)) - set(rows)
    assert all(not cache.snapshot(row, 4).any() for row in untouched)


def test_rows_at_different_fill_share_a_forward() -> None:
    """A stream that begins beside a long one reads its own few cells, however they are leased."""
    cache = new_cache(MODEL, Positions.WINDOW, rows=2, cells=4)
    old, new = (RollingWindow(sinks=1, ring=3, positions=Positions.WINDOW) for _ in range(2))
    first, second = latents(0, 7), latents(1, 2)
    for frame in range(5):
        forward(MODEL, cache, [0], [old], frame, first[None, frame : frame + 1])
    outputs = []
    for frame in range(2):
        placements = [old.place(5 + frame, 1), new.place(frame, 1)]
        plan = cache.prepare([0, 1], placements)
        assert len(plan.runs) == 2
        embedded = MODEL.embed_text(text(1)[None].expand(2, -1, -1))
        keys = tuple(MODEL.text_kv(index, embedded) for index in range(2))
        cond = MODEL.condition(torch.full((2, 1), TIMESTEP), keys)
        hidden = MODEL.embed(torch.stack([first[5 + frame], second[frame]])[:, None])
        for index in range(2):
            hidden = MODEL.block(index, hidden, cond, cache.layer(index, plan))
        outputs.append(MODEL.head(hidden, cond, GRID)[1])
    fresh = new_cache(MODEL, Positions.WINDOW, rows=2, cells=4)
    window = RollingWindow(sinks=1, ring=3, positions=Positions.WINDOW)
    for frame, output in enumerate(outputs):
        alone = forward(MODEL, fresh, [0], [window], frame, second[None, frame : frame + 1])
        torch.testing.assert_close(output, alone[0], **CLOSE)


def test_attention_reads_slices_of_the_store() -> None:
    """Rows in a run are read where they lie: no copy of the keys and values is made."""
    seen: list[bool] = []

    def spying(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append(all(x.untyped_storage().data_ptr() == storage for x in (k, v)))
        return PLAIN.attention(q, k, v)

    operations = replace(PLAIN, attention=spying)
    cache = new_cache(MODEL, Positions.ABSOLUTE, rows=4, cells=4, operations=operations)
    storage = cache._store.untyped_storage().data_ptr()
    stream(cache, [1, 2, 3], sinks=1, ring=3, size=1, num_chunks=6)
    assert len(seen) == 6 * MODEL.facts.num_blocks
    assert all(seen)


def test_copied_cells_are_equal_and_no_others_change() -> None:
    cache = new_cache(MODEL, Positions.ABSOLUTE, rows=4, cells=4)
    stream(cache, [0, 1, 2, 3], sinks=1, ring=3, size=1, num_chunks=4)
    before = [cache.snapshot(row, 4) for row in range(4)]
    cache.copy_cells(2, (0, 3), (0, 1))
    tokens = 2 * GRID.num_tokens
    for row in range(4):
        after = cache.snapshot(row, 4)
        source = before[2] if row in (0, 3) else before[row]
        assert torch.equal(after[:, :, :tokens], source[:, :, :tokens])
        assert torch.equal(after[:, :, tokens:], before[row][:, :, tokens:])


def test_the_size_of_a_cache_is_what_it_takes() -> None:
    cache = new_cache(MODEL, Positions.ABSOLUTE, rows=3, cells=5)
    assert cache.shape.size_bytes(torch.float32) == cache._store.untyped_storage().nbytes()
