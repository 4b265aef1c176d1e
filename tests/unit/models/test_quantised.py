"""Linear layers in 8 bits are near the ones that they replace, and say so where they cannot be."""

import importlib.util

import pytest
import torch
from torch import nn

from streamgen.errors import ConfigError
from streamgen.models.quantised import Fp8Linear, Linears, quantise_linears, to_fp8
from streamgen.ops.backend import check_fp8
from tests.small_engine import small_dit


def test_fp8_codes_are_within_half_a_step() -> None:
    """e4m3 keeps 3 bits behind the leading one: at most 1/16 of a number is lost."""
    x = torch.randn(5, 64)
    codes, scale = to_fp8(x)
    back = codes.float() * scale
    normal = x.abs() > scale * 2**-6
    assert ((back - x).abs()[normal] <= x.abs()[normal] / 16 + 1e-6).all()
    assert torch.equal(to_fp8(torch.zeros(1, 16))[0].float(), torch.zeros(1, 16))


def test_an_fp8_linear_is_near_its_original() -> None:
    """Errors of weights and activations, 2.6 % each, averaged over channels."""
    linear = nn.Linear(64, 32)
    x = torch.randn(2, 7, 64)
    found, expected = Fp8Linear(linear)(x), linear(x)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert (found - expected).norm() / expected.norm() < 0.05


def test_all_linear_layers_of_the_blocks_are_replaced_and_no_others() -> None:
    model = small_dit(num_blocks=2)
    assert quantise_linears(model, Linears.FP8) == 2 * 10  # q k v o twice, and two of the FFN
    assert not any(type(module) is nn.Linear for module in model.blocks.modules())
    assert type(model.head.head) is nn.Linear
    assert all(type(model.text_embedding[index]) is nn.Linear for index in (0, 2))


def test_nothing_is_replaced_where_all_is_kept() -> None:
    model = small_dit()
    assert quantise_linears(model, Linears.FULL) == 0
    assert not any(isinstance(module, Fp8Linear) for module in model.modules())


@pytest.mark.skipif(
    importlib.util.find_spec("torchao") is not None, reason="torchao is installed here"
)
def test_without_torchao_int8_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"needs torchao.*pip install \"torchao"):
        quantise_linears(small_dit(), Linears.INT8)


def test_fp8_is_refused_on_a_gpu_that_cannot_multiply_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ampere has no e4m3: one line that says so, and what to take instead. A CPU emulates it."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(ConfigError, match=r"8\.9 .*this one has 8\.6; use \"int8\""):
        check_fp8(cuda, 'cache.dtype = "fp8"')
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    check_fp8(cuda, 'cache.dtype = "fp8"')
    check_fp8(torch.device("cpu"), 'cache.dtype = "fp8"')
