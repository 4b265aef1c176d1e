"""The tiny model is trained on what a stream will see: each frame's past, and nothing else."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from streamgen.models.tiny.text import TinyTextEncoder, Vocabulary
from streamgen.models.wan.dit import WanDiT
from tiny_training import losses
from tiny_training.batches import TrainingBatch, window
from tiny_training.model import Sizes, dit_config, make_dit
from tiny_training.muon import Muon, orthogonalise
from tiny_training.pool import LATENT_FRAMES

FRAMES, CHANNELS = 4, 3


def small_model() -> tuple[WanDiT, TinyTextEncoder]:
    torch.manual_seed(0)
    dit = make_dit(dit_config(Sizes(dim=24, ffn_dim=32, num_heads=2, num_blocks=2), CHANNELS))
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    text = TinyTextEncoder(Vocabulary({"red": "red"}), dim=128, num_layers=1, text_len=24)
    return dit, text


def windows_of(clean_BNCHW: Tensor) -> losses.Windows:
    dit, text = small_model()
    size, frames = clean_BNCHW.shape[:2]
    batch = TrainingBatch(
        clean_BNCHW,
        torch.zeros_like(clean_BNCHW),
        torch.zeros(size, 24, dtype=torch.long),
        torch.zeros(size, 24, dtype=torch.bool),
        torch.ones(size, frames),
    )
    return losses.Windows(dit, text, batch, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changed", range(FRAMES))
def test_a_frame_trained_after_a_clean_past_sees_only_that_past(changed: int) -> None:
    """Context moves the predictions of later frames alone; a noisy frame only its own."""
    clean = torch.randn(1, FRAMES, CHANNELS, 4, 4)
    windows = windows_of(clean)
    noisy, sigma = torch.randn_like(clean), torch.full((1, FRAMES), 0.5)
    before = losses.predict_from_clean(windows, noisy, clean, sigma)
    other = clean.clone()
    other[:, changed] += 1
    moved = (losses.predict_from_clean(windows, noisy, other, sigma) - before).abs()
    is_moved = moved.amax(dim=(0, 2, 3, 4)) > 1e-6
    assert is_moved.tolist() == [frame > changed for frame in range(FRAMES)]
    other = noisy.clone()
    other[:, changed] += 1
    moved = (losses.predict_from_clean(windows, other, clean, sigma) - before).abs()
    is_moved = moved.amax(dim=(0, 2, 3, 4)) > 1e-6
    assert is_moved.tolist() == [frame == changed for frame in range(FRAMES)]


@pytest.mark.parametrize("changed", range(FRAMES))
def test_a_frame_trained_at_equal_noise_sees_itself_and_the_frames_before(changed: int) -> None:
    clean = torch.randn(1, FRAMES, CHANNELS, 4, 4)
    windows = windows_of(clean)
    noisy, sigma = torch.randn_like(clean), torch.full((1, FRAMES), 0.5)
    before = losses.predict_from_equal(windows, noisy, clean, sigma)
    other = noisy.clone()
    other[:, changed] += 1
    moved = (losses.predict_from_equal(windows, other, clean, sigma) - before).abs()
    is_moved = moved.amax(dim=(0, 2, 3, 4)) > 1e-6
    assert is_moved.tolist() == [frame >= changed for frame in range(FRAMES)]


@pytest.mark.parametrize("loss_of", [losses.plain_loss, losses.self_forced_loss])
@pytest.mark.parametrize("predict", [losses.predict_from_clean, losses.predict_from_equal])
def test_losses_reach_every_weight(loss_of, predict) -> None:  # type: ignore[no-untyped-def]
    """No part of the DiT is left without a gradient."""
    windows = windows_of(torch.randn(2, FRAMES, CHANNELS, 4, 4))
    loss_of(windows, predict).backward()
    missing = [name for name, p in windows.model.named_parameters() if p.grad is None]
    assert missing == []


def test_windows_are_a_sink_and_neighbours() -> None:
    """A window is the stream's beginning, or its first frame and consecutive later ones."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        picks, has_gap = window(rng, FRAMES, is_periodic=True)
        assert picks[0] == 0
        steps = {(b - a) % LATENT_FRAMES for a, b in pairwise(picks[1:])}
        assert steps == {1}
        assert has_gap or picks == list(range(FRAMES))
        picks, _ = window(rng, FRAMES, is_periodic=False)
        assert all(b == a + 1 for a, b in pairwise(picks[1:]))
        assert max(picks) < LATENT_FRAMES


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 16, 4), (2, 4, 16)])
def test_orthogonalisation_brings_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    """Five quintic iterations reach [0.5, 1.3] from any well-conditioned start."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.max() < 1.35
    assert values.median() > 0.5


def test_muon_follows_the_gradient() -> None:
    """On a quadratic bowl the loss falls."""
    target = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.zeros(6, 6))
    muon = Muon([weight], lr=0.05, momentum=0.9, weight_decay=0.0, dtype=torch.float32)
    first = float((weight.detach() - target).square().mean())
    for _ in range(100):
        muon.zero_grad()
        (weight - target).square().mean().backward()
        muon.step()
    assert float((weight.detach() - target).square().mean()) < 0.2 * first
