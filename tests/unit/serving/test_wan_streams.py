"""A small Wan model in its published files, through the presets of the large ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from streamgen import Host, Stream
from streamgen.clock import MonotonicClock
from streamgen.config.load import list_presets, load_preset
from streamgen.errors import CheckpointError, ConfigError
from streamgen.media.source import FrameSource
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.types import PictureSize, Pixels
from tests.small_wan import DIT, SmallWan, write_diffusers, write_published

PROMPT = "a red ball over the sea"
SIZE = PictureSize(32, 48)
RECIPES = [info.name for info in list_presets() if info.family == "wan"]
SHORT = ("cache.sinks=3", "cache.ring=6")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> SmallWan:
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def diffusers(tmp_path_factory: pytest.TempPathFactory) -> SmallWan:
    return write_diffusers(tmp_path_factory.mktemp("diffusers"))


def film(
    files: SmallWan,
    preset: str,
    frames: int,
    *settings: str,
    prompt: str = PROMPT,
    source: FrameSource | None = None,
) -> Pixels:
    overrides = files.overrides(*settings)
    with Stream(
        preset, prompt=prompt, max_frames=frames, overrides=overrides, source=source
    ) as stream:
        return np.stack([frame.pixels for frame in stream])


def clip(num_frames: int) -> SyntheticSource:
    return SyntheticSource(SIZE, fps=16, clock=MonotonicClock(), num_frames=num_frames)


def test_text_becomes_video_through_a_preset(published: SmallWan) -> None:
    """The first chunk has 1 + 4 * 2 pictures, later ones 12; the window rolls."""
    pictures = film(published, "self-forcing-1.3b", 9 + 3 * 12, *SHORT)
    assert pictures.shape == (45, 32, 48, 3)
    assert np.abs(np.diff(pictures.astype(int), axis=0)).mean() > 1
    again = film(published, "self-forcing-1.3b", 9, *SHORT)
    assert np.array_equal(again, pictures[:9])
    other = film(published, "self-forcing-1.3b", 9, *SHORT, prompt="the star at night")
    assert not np.array_equal(other, again)


def test_both_published_layouts_give_the_same_pictures(
    published: SmallWan, diffusers: SmallWan
) -> None:
    here = film(published, "self-forcing-1.3b", 9, *SHORT)
    there = film(diffusers, "self-forcing-1.3b", 9, *SHORT, "wan.state_dict=")
    assert np.array_equal(here, there)


@pytest.mark.parametrize("codec", ["vae", "taehv"])
def test_video_becomes_video_through_a_preset(published: SmallWan, codec: str) -> None:
    """Every frame of the input comes back as one frame, the last, incomplete clip too."""
    settings = [f"wan.codec={codec}"]
    if codec == "taehv":
        settings.append("wan.latent_norm=standard")
    pictures = film(
        published, "streamdiffusionv2-1.3b-v2v", 100, *settings, source=clip(5 + 4 * 3 + 2)
    )
    assert pictures.shape == (19, 32, 48, 3)
    assert np.abs(np.diff(pictures.astype(int), axis=0)).mean() > 1


def small_lora(folder: Path, name: str, seed: int) -> Path:
    """As LongLive publishes its own: PEFT names in a wrapper, cross-attention's keys too."""
    generator = torch.Generator().manual_seed(seed)
    stem = "base_model.model.model.blocks.1"
    factors: dict[str, torch.Tensor] = {}
    for module in ("self_attn.q", "cross_attn.k", "cross_attn.v"):
        for role, shape in (("lora_A", (4, DIT.dim)), ("lora_B", (DIT.dim, 4))):
            factor = torch.randn(shape, generator=generator) * 0.2
            factors[f"{stem}.{module}.{role}.weight"] = factor
    file = folder / name
    torch.save({"generator_lora": factors}, file)
    return file


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_a_stream(published: SmallWan, tmp_path: Path, name: str) -> None:
    """Its own ladder, chunk, cache and codec, on small weights; two chunks, all of them finite."""
    config = load_preset(name)
    assert config.wan is not None
    state = "wan.state_dict=" + config.wan.state_dict
    loras = f"wan.loras=[{{name='a', weights='{small_lora(tmp_path, 'lora.pt', 1)}', scale=1.0}}]"
    settings = [state, loras] if config.wan.loras else [state]
    is_video = config.task == "video-to-video"
    source = clip(9) if is_video else None
    pictures = film(published, name, 9 if is_video else 13, *settings, source=source)
    assert pictures.shape == (9 if is_video else 13, 32, 48, 3)
    assert pictures[-1].std() > 1


def test_several_loras_change_their_scales_while_a_stream_runs(
    published: SmallWan, tmp_path: Path
) -> None:
    """Off again is as before: keys and values of prompts follow the weights, there and back."""
    files = [small_lora(tmp_path, f"{name}.pt", seed) for seed, name in enumerate("ab")]
    listed = ", ".join(
        f"{{name='{name}', weights='{file}', scale=0.0}}"
        for name, file in zip("ab", files, strict=True)
    )
    overrides = published.overrides("cache.sinks=0", "cache.ring=3", f"wan.loras=[{listed}]")
    with Host("self-forcing-1.3b", overrides=overrides) as host:
        bank = host.pipeline.engine._executor._stage.prompts  # type: ignore[attr-defined]
        with Stream(host, prompt=PROMPT) as stream:
            next(stream)
            (before,) = (text[1].k_BMNE.clone() for text in bank._prompts.values())
            stream.lora_scales = {"a": 1.0, "b": 0.5}
            assert stream.lora_scales == {"a": 1.0, "b": 0.5}
            host.tick()
            (changed,) = (text[1].k_BMNE.clone() for text in bank._prompts.values())
            stream.lora_scales = {"b": 0.0}
            host.tick()
            (one,) = (text[1].k_BMNE.clone() for text in bank._prompts.values())
            stream.lora_scales = {"a": 0.0}
            host.tick()
            (after,) = (text[1].k_BMNE.clone() for text in bank._prompts.values())
            assert torch.equal(before, after)
            assert not torch.equal(before, one)
            assert not torch.equal(one, changed)
            with pytest.raises(ConfigError, match="no LoRA 'c'; loaded: a, b"):
                stream.lora_scales = {"c": 1.0}
            with pytest.raises(ConfigError, match="is not a finite number"):
                stream.lora_scales = {"a": float("nan")}


def test_a_file_that_was_not_downloaded_is_named_with_the_command(
    published: SmallWan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    overrides = published.overrides("wan.vae_weights=hub:Nobody/Nothing/vae.pth")
    with pytest.raises(CheckpointError, match=r"vae\.pth is not on this machine; get it with: str"):
        Host("self-forcing-1.3b", overrides=overrides)


def test_a_checkpoint_of_another_size_than_the_recipe_is_refused(
    published: SmallWan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with room enough for what the recipe says."""
    monkeypatch.setattr("streamgen.serving.build.free_bytes", lambda device: None)
    overrides = published.overrides("wan.size=1.3B", "cache.ring=3")
    with pytest.raises(CheckpointError, match=r"the recipe wants 1\.3B"):
        Host("self-forcing-1.3b", overrides=overrides)
