"""A small Wan model in its published files, through the presets of the large ones."""

from __future__ import annotations

import numpy as np
import pytest

from streamgen import Stream
from streamgen.clock import MonotonicClock
from streamgen.media.source import FrameSource
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.types import PictureSize, Pixels
from tests.small_wan import SmallWan, write_diffusers, write_published

PROMPT = "a red ball over the sea"
SIZE = PictureSize(32, 48)
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
