"""The table of docs/memory.md is what the code computes, and its settings fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from streamgen.config.load import list_presets, load_preset
from streamgen.ops.backend import Backend
from streamgen.serving.build import memory_needed
from streamgen.serving.cards import KEPT_BYTES, CardFit, fits_on_cards

PAGE = Path(__file__).resolve().parents[3] / "docs" / "memory.md"
GPU = Backend(torch.device("cuda"), torch.bfloat16)
SHOWN_GB = (8, 12, 16, 24)


def line(name: str, fit: CardFit) -> str:
    if fit.settings is None or fit.memory is None:
        return f"| `{name}` | {fit.card_gb} GB | does not fit | |"
    settings = " ".join(f"`{text}`" for text in fit.settings) or "as it is"
    return f"| `{name}` | {fit.card_gb} GB | {settings} | {fit.memory.device_bytes / 1e9:.1f} GB |"


def table() -> list[str]:
    """Every line of the page's table, as it should be."""
    names = [info.name for info in list_presets() if info.family == "wan"]
    return [
        line(name, fit)
        for name in names
        for fit in fits_on_cards(load_preset(name))
        if fit.card_gb in SHOWN_GB
    ]


def test_the_page_says_what_the_code_computes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^\| `.*\|$", text.partition("## Cards")[2], re.MULTILINE)
    expected = table()
    assert found == expected, "the table of docs/memory.md should be:\n" + "\n".join(expected)


@pytest.mark.parametrize("card_gb", [8, 12])
def test_the_small_model_runs_at_its_own_size_on_small_cards(card_gb: int) -> None:
    """1.3B at 480x832, its window as it was trained: what makes it fit are formats and codec."""
    name = "self-forcing-1.3b"
    fit = next(fit for fit in fits_on_cards(load_preset(name)) if fit.card_gb == card_gb)
    assert fit.settings is not None
    assert not any(text.startswith(("picture.", "cache.ring")) for text in fit.settings)
    needed = memory_needed(load_preset(name, fit.settings), GPU)
    assert needed.device_bytes <= card_gb * 2**30 - KEPT_BYTES


def test_a_cache_of_codes_counts_their_scales_and_the_window_of_a_layer() -> None:
    """30 x 2 x 21 x 1,560 tokens of 12 heads, 128 codes and a float32 scale each."""
    name = "self-forcing-1.3b"
    small = dict(memory_needed(load_preset(name, ["cache.dtype=int8"]), GPU).device)
    assert small["KV cache"] == 30 * 2 * 21 * 1560 * 12 * (128 + 4)
    smaller = dict(memory_needed(load_preset(name, ["cache.dtype=int4"]), GPU).device)
    assert smaller["KV cache"] == 30 * 2 * 21 * 1560 * 12 * (64 + 4)


def test_small_linears_are_on_the_host_before_they_are_small() -> None:
    name = "self-forcing-1.3b"
    full, small = (memory_needed(load_preset(name, [f"speed.linears={kind}"]), GPU)
                   for kind in ("full", "int8"))  # fmt: skip
    saved = dict(full.device)["weights"] - dict(small.device)["weights"]
    blocks = 30 * (8 * 1536**2 + 2 * 1536 * 8960)
    assert saved == blocks - 4 * 30 * (9 * 1536 + 8960)
    assert small.host_bytes - full.host_bytes == dict(full.device)["weights"]
