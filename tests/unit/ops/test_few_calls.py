"""The operations in few calls are their definitions, up to the rounding of float32."""

import pytest
import torch
from torch import Tensor

from streamgen.cache.window import Positions
from streamgen.errors import ConfigError
from streamgen.ops.backend import choose_operations
from streamgen.ops.few_calls import FEW_CALLS
from streamgen.ops.operations import PLAIN
from streamgen.scheduling.policy import StreamBatch
from tests.small_engine import SmallEngine, small_dit, small_recipe

CPU = torch.device("cpu")


def assert_close(found: Tensor, expected: Tensor, *, atol: float = 2e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_modulation_in_few_calls_is_its_definition(rows: int, frames: int) -> None:
    x, update = torch.randn(rows, 4 * frames, 8), torch.randn(rows, 4 * frames, 8)
    shift, scale = torch.randn(rows, frames, 8), torch.randn(rows, frames, 8)
    assert_close(
        FEW_CALLS.norm_modulate(x, shift, scale, 1e-6), PLAIN.norm_modulate(x, shift, scale, 1e-6)
    )
    assert_close(FEW_CALLS.gated_residual(x, update, shift), PLAIN.gated_residual(x, update, shift))


def test_bytes_in_few_calls_are_their_definition() -> None:
    """Exactly: whites, blacks, what is beyond them, and halves between two bytes."""
    pixels = torch.cat([torch.randn(1, 3, 4, 6), (torch.arange(72.0) / 127.5 - 1).view(1, 3, 4, 6)])
    before = pixels.clone()
    found = FEW_CALLS.to_bytes(pixels)
    assert torch.equal(found, PLAIN.to_bytes(pixels))
    assert found.is_contiguous()
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("positions", list(Positions))
def test_streams_in_few_calls_are_those_of_the_definitions(positions: Positions) -> None:
    """Two sessions at different lengths, windows that roll: norms, rotation and writes, all in."""
    latents = {}
    for operations in (PLAIN, FEW_CALLS):
        engine = SmallEngine(
            StreamBatch(), positions=positions, model=small_dit(), operations=operations
        )
        recipe = small_recipe(steps=2, positions=positions)
        streams = [engine.open(recipe, seed=seed, max_chunks=5 + seed) for seed in range(2)]
        engine.finish(*streams)
        latents[operations.name] = [latent for stream in streams for latent in stream.latents]
    for one, other in zip(latents["plain"], latents["few calls"], strict=True):
        assert_close(one, other, atol=2e-5)


def test_kernels_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGEN_KERNELS", "off")
    assert choose_operations(CPU, torch.float32) is PLAIN
    monkeypatch.delenv("STREAMGEN_KERNELS")
    assert choose_operations(CPU, torch.float32) is FEW_CALLS
    assert choose_operations(CPU, torch.bfloat16) is PLAIN


def test_a_wrong_switch_for_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGEN_KERNELS", "no")
    with pytest.raises(ConfigError, match='"no" is neither auto nor off'):
        choose_operations(CPU, torch.float32)
