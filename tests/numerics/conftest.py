"""Access to the recorded cases in tests/golden (its README.md says where they come from)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN_DIR = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="session")
def golden_case() -> Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]:
    """Call it with a case's name: its tensors, bfloat16 cast to float32, and its meta.json."""

    def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        folder = GOLDEN_DIR / name
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        stored = load_file(folder / "tensors.safetensors")
        tensors = {
            key: value.float() if value.dtype == torch.bfloat16 else value
            for key, value in stored.items()
        }
        return tensors, meta

    return load
