"""Kernels run on a GPU where there is one, else on the CPU through Triton's interpreter."""

from dataclasses import dataclass
from types import ModuleType

import pytest
import torch


@dataclass(frozen=True, slots=True)
class Kernels:
    adaln: ModuleType
    flow_step: ModuleType
    kv_quantise: ModuleType
    pixels: ModuleType
    rope_kv_write: ModuleType
    device: torch.device


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    pytest.importorskip("triton", reason="Triton is not installed; pip install triton")
    from streamgen_kernels import adaln, flow_step, kv_quantise, pixels, rope_kv_write

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Kernels(adaln, flow_step, kv_quantise, pixels, rope_kv_write, device)


@pytest.fixture
def draw(kernels: Kernels):
    """Random tensors on the kernels' device, the same ones in every run."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(kernels.device, dtype)

    return normal
