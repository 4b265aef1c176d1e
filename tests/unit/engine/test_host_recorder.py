"""A forward on a CPU as a list of calls: the same numbers to the bit, in a little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from streamgen.cache.window import Positions
from streamgen.engine.forward import AsWritten, Replayed
from streamgen.engine.host_memory import Arena, Lifetime
from streamgen.engine.host_recorder import HostRecorder
from streamgen.engine.recipe import CacheMode
from streamgen.ops.few_calls import FEW_CALLS
from streamgen.ops.operations import PLAIN, Operations
from streamgen.ops.quantise import KVFormat
from streamgen.scheduling.policy import StreamBatch
from tests.small_engine import SmallEngine, small_recipe


def latents_of(
    runner: AsWritten | Replayed, mode: CacheMode, operations: Operations, kind: KVFormat
) -> list[Tensor]:
    """Two sessions under two prompts, windows that roll; one changes its prompt on the way."""
    positions = Positions.WINDOW
    rig = SmallEngine(
        StreamBatch(), positions=positions, runner=runner, operations=operations, kind=kind
    )
    recipe = small_recipe(steps=2, mode=mode, positions=positions)
    streams = [
        rig.open(recipe, seed=seed, prompt=rig.prompt(seed), max_chunks=12 + seed)
        for seed in range(2)
    ]
    rig.tick(9)
    rig.engine.set_prompt(streams[0].session, rig.prompt(5))
    rig.finish(*streams)
    return [latent for stream in streams for latent in stream.latents]


@pytest.mark.parametrize("operations", [PLAIN, FEW_CALLS], ids=lambda one: one.name)
@pytest.mark.parametrize("mode", list(CacheMode))
def test_streams_from_lists_of_calls_are_the_written_ones(
    mode: CacheMode, operations: Operations
) -> None:
    replayed = Replayed(HostRecorder())
    found = latents_of(replayed, mode, operations, KVFormat.FULL)
    assert replayed.num_recordings >= 1
    written = latents_of(AsWritten(), mode, operations, KVFormat.FULL)
    assert all(torch.equal(*pair) for pair in zip(found, written, strict=True))


@pytest.mark.parametrize("kind", [KVFormat.FP8, KVFormat.INT8, KVFormat.INT4])
def test_a_cache_in_few_bits_is_replayed_too(kind: KVFormat) -> None:
    replayed = Replayed(HostRecorder())
    found = latents_of(replayed, CacheMode.CLEAN, FEW_CALLS, kind)
    assert replayed.num_recordings >= 1
    written = latents_of(AsWritten(), CacheMode.CLEAN, FEW_CALLS, kind)
    assert all(torch.equal(*pair) for pair in zip(found, written, strict=True))


def a_bit_of_everything(x_LD: Tensor, kept_LD: Tensor) -> Tensor:
    """Views, results in place, what can be told where to write and what cannot."""
    normed_LD = functional.layer_norm(x_LD, (x_LD.shape[-1],))
    halves = normed_LD.unflatten(-1, (2, -1)).unbind(1)
    q, k = (half_LD[None, None] for half_LD in halves)
    attended = functional.scaled_dot_product_attention(q, k, q)
    kept_LD.mul_(2).add_(x_LD)
    room = torch.empty_like(x_LD)
    room[:, ::2] = attended[0, 0]
    room[:, 1::2] = halves[1].sort(dim=0).values
    return torch.cat([room, kept_LD]).t().contiguous().t() @ x_LD.t()


def test_a_replay_reads_and_writes_where_the_recording_did() -> None:
    x_LD, kept_LD = torch.randn(4, 8), torch.randn(4, 8)
    start_LD = kept_LD.clone()
    replay, result = HostRecorder().record(lambda: a_bit_of_everything(x_LD, kept_LD))
    for _ in range(3):
        x_LD.copy_(torch.randn(4, 8))
        kept_LD.copy_(start_LD)
        replay()
        found, found_kept = result.clone(), kept_LD.clone()
        kept_LD.copy_(start_LD)
        assert torch.equal(found, a_bit_of_everything(x_LD, kept_LD))
        assert torch.equal(found_kept, kept_LD)


@pytest.mark.parametrize(
    "function", [lambda x: x * float(x.sum()), lambda x: x[x > 0], lambda x: x.nonzero().float()]
)
def test_what_depends_on_the_content_of_tensors_is_refused(
    function: Callable[[Tensor], Tensor],
) -> None:
    x = torch.randn(8)
    with pytest.raises(RuntimeError, match="cannot be replayed"):
        HostRecorder().record(lambda: function(x))


def a_chain(x: Tensor, length: int) -> Tensor:
    for _ in range(length):
        x = x * 2 + 1
    return x


def test_what_is_not_needed_at_the_same_time_shares_memory() -> None:
    """Of 80 results at most two are needed at once, and a second recording needs no more."""
    arena, x = Arena(), torch.randn(1000)
    recorder = HostRecorder(arena)
    replays = [recorder.record(lambda: a_chain(x, 40)) for _ in range(2)]
    assert arena.num_bytes == 2 * x.nbytes
    for replay, result in replays:
        replay()
        assert torch.equal(result, a_chain(x, 40))


SPANS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 50)), max_size=30)


@given(SPANS, SPANS)
def test_lifetimes_that_meet_share_no_block(
    earlier: Sequence[tuple[int, int, int]], later: Sequence[tuple[int, int, int]]
) -> None:
    arena = Arena()
    for spans in (earlier, later):
        lifetimes = [
            Lifetime(first, first + length, [torch.zeros(size), torch.zeros(size)])
            for first, length, size in sorted(spans)
        ]
        arena.move_in(lifetimes)
        for index, one in enumerate(lifetimes):
            addresses = {tensor.data_ptr() for tensor in one.tensors}
            assert len(addresses) == 1
            for other in lifetimes[:index]:
                if one.first <= other.last:
                    assert addresses.isdisjoint({tensor.data_ptr() for tensor in other.tensors})


def test_recording_imports_no_compiler() -> None:
    """It would take seconds, in the midst of a stream."""
    program = (
        "import sys, torch\n"
        "from streamgen.engine.host_recorder import HostRecorder\n"
        "x = torch.ones(2, 2)\n"
        "HostRecorder().record(lambda: torch.nn.functional.linear(x, x) + 1)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
