"""Streams that are rolled out in training look back as the engine's do, and aim at their own phase.

Legend: B streams, F latent frames, C H W latents.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from streamgen.models.full_sequence import forward_full
from streamgen.models.tiny.text import TinyTextEncoder, Vocabulary
from tiny_training.model import Sizes, dit_config, make_dit
from tiny_training.pool import LATENT_FRAMES, Item, LatentPool, Shard, save_shard
from tiny_training.rollout import RING, SINKS, TURN_CHUNKS, Rollouts, StreamGroup
from tiny_world import SMALL, VOCABULARY, sample_scene

CHANNELS, SIDE, STREAMS = 3, 4, 2
CPU = torch.device("cpu")


@pytest.fixture
def rollouts(tmp_path: Path) -> Rollouts:
    """Two clips of noise, one of the world and one real picture, and a small random model."""
    torch.manual_seed(0)
    items = (
        Item("world", sample_scene(np.random.default_rng(0), SMALL), "none"),
        Item("styled", sample_scene(np.random.default_rng(1), SMALL), "sepia"),
        Item("picture", None, "none"),
    )
    clips = torch.randn(len(items), LATENT_FRAMES, CHANNELS, SIDE, SIDE).half()
    still = torch.randn(len(items), CHANNELS, SIDE, SIDE).half()
    save_shard(Shard(items, clips, clips, still), tmp_path / "shard_00000.pt")
    pool = LatentPool(tmp_path)
    pool.refresh()
    dit = make_dit(dit_config(Sizes(dim=24, ffn_dim=32, num_heads=2, num_blocks=2), CHANNELS))
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    vocabulary = Vocabulary(VOCABULARY)
    text = TinyTextEncoder(vocabulary, dim=128, num_layers=1, text_len=24)
    return Rollouts(dit, text, pool, vocabulary, num_streams=STREAMS, device=CPU)


def group_of(indices: list[int], *, is_still: bool = False) -> StreamGroup:
    words = torch.zeros(len(indices), 24, dtype=torch.long)
    return StreamGroup(
        indices, [is_still] * len(indices), words, words.bool(), age=0, cells=[], last=[]
    )


@pytest.mark.parametrize("phase", range(LATENT_FRAMES))
def test_the_target_follows_the_phase_that_the_stream_is_in(rollouts: Rollouts, phase: int) -> None:
    """Whatever the clock says: after something near frame p of its clip comes frame p + 1."""
    group = group_of([0])
    clip_FCHW = rollouts._pool.target(0).float()
    group.age = 5
    group.last = [clip_FCHW[phase] + 0.05 * torch.randn_like(clip_FCHW[phase])]
    expected = clip_FCHW[(phase + 1) % LATENT_FRAMES]
    assert torch.equal(rollouts._targets(group)[0, 0], expected)


def test_a_still_start_shows_the_picture_then_the_first_frame(rollouts: Rollouts) -> None:
    """A real picture, which nobody knows the future of, stands for ever."""
    group = group_of([0, 2], is_still=True)
    still = [rollouts._pool.still(index).float() for index in (0, 2)]
    assert torch.equal(rollouts._targets(group)[:, 0], torch.stack(still))
    group.age, group.last = 1, still
    first = rollouts._pool.target(0)[0].float()
    assert torch.equal(rollouts._targets(group)[:, 0], torch.stack([first, still[1]]))


def test_a_chunk_looks_back_as_a_plain_causal_forward_does(rollouts: Rollouts) -> None:
    """Until the window rolls, held keys and values say what one forward over all frames says."""
    group = group_of([0, 1])
    texts = rollouts._texts(group)
    frames = torch.randn(STREAMS, 3, CHANNELS, SIDE, SIDE)
    with torch.no_grad():
        for number in range(2):
            rollouts._keep(group, texts, frames[:, number : number + 1])
        predicted, _ = rollouts._forward(group, texts, frames[:, 2:], 700.0)
        whole = forward_full(
            rollouts._dit,
            torch.cat([frames, torch.zeros_like(frames)], dim=2),
            torch.tensor([[0.0, 0.0, 700.0]]).expand(STREAMS, 3),
            rollouts._text.features(group.ids_BM, group.is_word_BM),
            positions_BF=torch.arange(3)[None],
            mask_FF=torch.ones(3, 3, dtype=torch.bool).tril(),
        )
    torch.testing.assert_close(predicted, whole[:, 2:], atol=1e-5, rtol=0)


def test_a_window_keeps_the_sink_and_the_newest(rollouts: Rollouts) -> None:
    group = group_of([0, 1])
    texts = rollouts._texts(group)
    kept = []
    for _ in range(7):
        rollouts._keep(group, texts, torch.randn(STREAMS, 1, CHANNELS, SIDE, SIDE))
        kept.append(group.cells[-1])
    assert len(group.cells) == SINKS + RING - 1
    assert [any(cell is held for held in group.cells) for cell in kept] == [
        index < SINKS or index >= len(kept) - (RING - 1) for index in range(len(kept))
    ]


def test_turns_reach_every_weight_and_streams_outlive_them(rollouts: Rollouts) -> None:
    rng = np.random.default_rng(3)
    ages: set[int] = set()
    for _ in range(40):
        rollouts.turn(rng).backward()
        ages |= {group.age for group in rollouts._groups if group is not None}
    assert max(ages) > 1 + TURN_CHUNKS
    for name, parameter in rollouts._dit.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
