"""Before weights load: what a preset needs, what is free, and which settings would fit."""

from __future__ import annotations

import pytest
import torch

from streamgen.config.load import list_presets, load_preset
from streamgen.config.schema import StreamConfig
from streamgen.errors import CapacityError
from streamgen.ops.backend import Backend, free_bytes
from streamgen.serving.build import memory_needed
from streamgen.serving.memory import Memory, check_fits, fitting_changes

GPU = Backend(torch.device("cuda"), torch.bfloat16)
GB = 1_000_000_000
WAN_PRESETS = [info.name for info in list_presets() if info.family == "wan"]


def needed(config: StreamConfig) -> Memory:
    return memory_needed(config, GPU)


def check(config: StreamConfig, free_gb: float, host_gb: float = 64) -> None:
    check_fits(
        config,
        needed,
        free_bytes=int(free_gb * GB),
        free_host_bytes=int(host_gb * GB),
        where="cuda",
    )


def test_the_parts_of_an_estimate_are_those_that_are_known() -> None:
    """1.3B at 832x480: weights 2.84 GB; KV 30 x 2 x 21 x 1,560 x 1,536 x 2 B = 6.04 GB."""
    parts = dict(needed(load_preset("self-forcing-1.3b")).device)
    assert parts["weights"] == pytest.approx(2.84 * GB, rel=0.01)
    assert parts["KV cache"] == 30 * 2 * 21 * 1560 * 1536 * 2
    assert parts["codec"] == pytest.approx((0.25 + 1.89) * GB, rel=0.01)
    assert parts["prompts"] == 4 * 30 * 2 * 512 * 1536 * 2
    assert parts["LoRAs"] == 0


def test_cache_rows_sessions_and_place_of_the_text_encoder_count() -> None:
    one = dict(needed(load_preset("streamdiffusionv2-1.3b-v2v")).device)
    three = dict(needed(load_preset("streamdiffusionv2-1.3b-v2v", ["engine.sessions=3"])).device)
    assert one["KV cache"] == 30 * 2 * 2 * 6 * 1560 * 1536 * 2  # a row a step
    assert three["KV cache"] == 3 * one["KV cache"]
    assert three["codec"] - one["codec"] == pytest.approx(2 * 3.0 * GB, rel=0.02)
    resting = needed(load_preset("self-forcing-1.3b"))
    staying = needed(load_preset("self-forcing-1.3b", ["wan.text_place=device"]))
    assert resting.host_bytes == pytest.approx(11.36 * GB, rel=0.01)
    assert staying.host_bytes == 0
    assert staying.device_bytes - resting.device_bytes > 10 * GB


@pytest.mark.parametrize("name", WAN_PRESETS)
def test_proposed_settings_fit_and_are_all_needed(name: str) -> None:
    """On half of what the preset takes; a proposal less one of its settings does not fit."""
    config = load_preset(name)
    free = needed(config).device_bytes // 2
    found = fitting_changes(config, needed, free)
    changes = [text for change in found for text in change.texts]
    if not changes:  # the weights alone take more
        assert dict(needed(config).device)["weights"] > 0.7 * free
        return
    assert needed(load_preset(name, changes)).device_bytes <= free
    for change in changes:
        if change.startswith("picture"):
            continue  # height and width are one proposal
        fewer = [other for other in changes if other != change]
        assert needed(load_preset(name, fewer)).device_bytes > free


def test_what_does_not_fit_is_refused_with_numbers_and_settings() -> None:
    config = load_preset("self-forcing-1.3b", ["wan.text_place=device"])
    check(config, 48)
    with pytest.raises(CapacityError) as caught:
        check(config, 16)
    assert "\n" not in str(caught.value)
    for words in ("weights 2.8, KV cache 6.0", "text encoder 11.4", "16.0 GB are free on cuda"):
        assert words in str(caught.value)
    assert '--set wan.text_place="host"' in str(caught.value)
    with pytest.raises(CapacityError, match="no smaller setting of this model fits"):
        check(load_preset("krea-realtime-14b"), 16)


def test_the_host_must_hold_a_resting_text_encoder() -> None:
    with pytest.raises(CapacityError, match=r"11\.4 GB of the host's memory, 8\.0 GB are free"):
        check(load_preset("self-forcing-1.3b"), 48, host_gb=8)


def test_where_nobody_knows_what_is_free_nothing_is_refused() -> None:
    config = load_preset("krea-realtime-14b")
    check_fits(config, needed, free_bytes=None, free_host_bytes=None, where="cpu")


def test_free_memory_of_the_host_is_a_plausible_number() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or 10**7 < free < 10**14
