"""The tiny model's file is read whole and sound, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from streamgen.errors import CheckpointError
from streamgen.models.tiny.bundle import load_tiny
from streamgen.models.tiny.header import PACKAGE_WEIGHTS

CPU = torch.device("cpu")


def spoilt(path: Path, name: str, value: torch.Tensor | None) -> str:
    """The package's file with one tensor replaced, or left out."""
    tensors = load_file(PACKAGE_WEIGHTS)
    with safe_open(PACKAGE_WEIGHTS, framework="pt") as stored:
        metadata = stored.metadata()
    del tensors[name]
    if value is not None:
        tensors[name] = value
    save_file(tensors, path, metadata)
    return str(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is missing"),
        (torch.zeros(3), "the model needs"),
        (torch.full((128,), float("nan")), "NaN or infinity"),
    ],
)
def test_a_spoilt_tensor_is_named(tmp_path: Path, value: torch.Tensor | None, words: str) -> None:
    path = spoilt(tmp_path / "spoilt.safetensors", "text.norm.weight", value)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_tiny(path, device=CPU, dtype=torch.float32)
    assert "text.norm.weight" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_weights_of_the_package_load_as_they_are() -> None:
    bundle = load_tiny("package", device=CPU, dtype=torch.float32)
    assert bundle.dit.facts.condition_channels == bundle.codec.facts.latent_channels
    assert bundle.text.unknown_words("a red ball at night, xyzzy") == ("xyzzy",)
    assert "ball" in bundle.knowledge
