"""What compiles the codec: TensorRT where it fits, else inductor, and only layers that are run."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from streamgen.engine import compile as compiling
from streamgen.engine.compile import compile_codec, missing_tensorrt
from streamgen.errors import ConfigError
from tests.small_codecs import small_tae, tiny_codec

CPU, GPU = torch.device("cpu"), torch.device("cuda")
OURS = ".".join(torch.__version__.split(".")[:2])
Compiled = dict[str, dict[str, Any]]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """Instead of compiling, notes which kinds of modules were to be, and how."""
    noted: Compiled = {}

    def note(module: nn.Module, **how: Any) -> None:
        noted[type(module).__name__] = how

    monkeypatch.setattr(nn.Module, "compile", note)
    monkeypatch.setattr(compiling, "_check_compiler", lambda: None)
    return noted


def install(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Let torch-tensorrt be there in a version, or be missing."""

    def found(name: str) -> Any:
        assert name == "torch_tensorrt"
        if version is None:
            raise ImportError("No module named 'torch_tensorrt'")
        return SimpleNamespace(__version__=version)

    monkeypatch.setattr(compiling.importlib, "import_module", found)


def test_a_sequence_of_layers_is_compiled_layer_by_layer(compiled: Compiled) -> None:
    """A codec with memories between its layers never calls the sequence, so that is no use."""
    compile_codec(small_tae(), CPU, tool="inductor")
    assert set(compiled) == {"Conv2d", "MemBlock", "TimeGrow"}


def test_a_decoder_in_one_piece_is_compiled_in_one_piece(compiled: Compiled) -> None:
    compile_codec(tiny_codec(), CPU, tool="inductor")
    assert compiled == {"Decoder": {"dynamic": False}}


def test_tensorrt_takes_the_precision_of_the_weights(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, f"{OURS}.1")
    compile_codec(tiny_codec().to(torch.bfloat16), GPU, tool="auto")
    assert compiled["Decoder"]["backend"] == "torch_tensorrt"
    assert compiled["Decoder"]["options"] == {"enabled_precisions": {torch.bfloat16}}


@pytest.mark.parametrize(
    ("version", "device", "reason"),
    [
        (None, GPU, f"torch-tensorrt {OURS}.x cannot be imported"),
        ("1.4.0", GPU, f"torch-tensorrt 1.4 is for torch 1.4, and this is torch {OURS}"),
        (f"{OURS}.0", CPU, "TensorRT runs on a GPU, and this is a cpu"),
    ],
)
def test_without_a_fitting_tensorrt_auto_says_why_and_asking_for_it_is_an_error(
    version: str | None,
    device: torch.device,
    reason: str,
    compiled: Compiled,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(monkeypatch, version)
    caplog.set_level(logging.INFO, logger="streamgen")
    compile_codec(tiny_codec(), device, tool="auto")
    assert reason in caplog.text
    assert "backend" not in compiled["Decoder"]
    with pytest.raises(ConfigError, match=r"set speed[.]codec = .auto. or .inductor."):
        compile_codec(tiny_codec(), device, tool="tensorrt")


def test_a_fitting_tensorrt_is_missing_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, f"{OURS}.7")
    assert missing_tensorrt(GPU) is None


def test_a_codec_without_a_decoder_cannot_be_compiled() -> None:
    with pytest.raises(ConfigError, match="nothing to compile"):
        compile_codec(nn.Identity(), CPU, tool="inductor")  # type: ignore[arg-type]
