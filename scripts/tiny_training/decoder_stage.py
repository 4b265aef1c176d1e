"""Teach the decoder to draw what the DiT predicts, not only what the encoder gives.

The DiT works in patches of 32x32 pixels and errs a little differently in each; a decoder that has
only seen encoded latents shows their borders. Here it sees predictions at the last levels of the
ladder (and encoded latents, too), with the true pictures as the aim.

Legend: B windows, N latent frames, T pixel frames, C H W latents.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from streamgen.models.tiny.codec import FRAMES, LATENT_CHANNELS, TinyCodec
from streamgen.models.tiny.text import Vocabulary
from streamgen.types import Pixels
from tiny_training import losses
from tiny_training.batches import TrainingBatch, condition_of, pad_prompts, prompt_of
from tiny_training.codec_stage import export, reconstruction_loss, to_tensor
from tiny_training.dit_stage import WINDOW_FRAMES, Trainee, fast_arithmetic
from tiny_training.model import TEXT_LEN, Sizes
from tiny_training.pool import KIND_SHARES, KINDS, LATENT_FRAMES, Item
from tiny_world import STYLES, World, apply_style, render, sample_scene
from tiny_world.photos import load_pictures, photo_clip

BATCH = 8  # windows
PREDICTED_SHARE = 0.75  # of the steps; the others decode encoded latents
SIGMAS = (0.4, 0.8)  # noise levels that predictions are made from
LATENT_NOISE = 0.05  # std, of latents whose variance is 1 on average
LEARNING_RATE = 4e-4
BEFORE_SHARE = 0.5  # of the weights before this stage in its result
LOG_EVERY = 20


@dataclass(frozen=True, slots=True)
class PixelWindows:
    """Windows with their true pictures, uint8 [B, T, H, W, 3]."""

    source: Pixels
    target: Pixels
    items: tuple[Item, ...]


def adapt_decoder(
    folder: Path,
    codec_weights: Path,
    *,
    world: World,
    sizes: Sizes,
    vocabulary: Vocabulary,
    pictures: Path,
    seconds: float,
    seed: int,
    device: torch.device,
) -> None:
    """Train the decoder for `seconds` beside the DiT of `folder`; its codec.safetensors results."""
    codec = TinyCodec()
    codec.load_state_dict(load_file(codec_weights))
    codec.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    codec.encoder.requires_grad_(False)
    trainee = Trainee(sizes, LATENT_CHANNELS, vocabulary)
    trainee.load_state_dict(
        torch.load(folder / "dit.pt", map_location="cpu", weights_only=True)["average"]
    )
    trainee.to(device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(codec.decoder.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    stills = load_pictures(pictures)
    log = (folder / "decoder_log.jsonl").open("a")
    began, step, recent = time.monotonic(), 0, []
    while (spent_s := time.monotonic() - began) < seconds:
        rng = np.random.default_rng((seed, 77, step))
        windows = draw_windows(rng, world, stills)
        pixels = to_tensor(windows.target, device)
        latents = _latents(windows, codec, trainee, vocabulary, rng)
        with fast_arithmetic(device):
            decoded = codec.decode_clips(latents).float()
        loss = reconstruction_loss(decoded.flatten(0, 1), pixels.flatten(0, 1))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 20) * (1 - spent_s / seconds)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.decoder.parameters(), 1.0)
        optimizer.step()
        recent.append(float(loss.detach()))
        step += 1
        if step % LOG_EVERY == 0:
            line = {"step": step, "spent_s": round(spent_s, 1), "loss": float(np.mean(recent))}
            log.write(json.dumps(line) + "\n")
            log.flush()
            recent.clear()
    average_with(codec, load_file(codec_weights))
    export(codec, folder / "codec.safetensors")


@torch.no_grad()
def average_with(codec: TinyCodec, before: dict[str, Tensor]) -> None:
    """Go back half of the way: what was learnt stays, and encoded latents are drawn sharper.

    Averaging weights before and after fine-tuning: Wortsman et al. 2022, arXiv:2109.01903.
    """
    for name, weight in codec.state_dict().items():
        weight.lerp_(before[name].to(weight), BEFORE_SHARE)


def draw_windows(
    rng: np.random.Generator, world: World, pictures: list[np.ndarray]
) -> PixelWindows:
    """Fresh clips of the three kinds that the pool has, with their pixels."""
    num_frames = WINDOW_FRAMES * FRAMES
    styles = [style for style in STYLES if style != "none"]
    sources, targets, items = [], [], []
    for _ in range(BATCH):
        kind = str(rng.choice(KINDS, p=KIND_SHARES))
        style = "none" if kind == "world" else str(rng.choice(styles))
        scene = None if kind == "picture" else sample_scene(rng, world)
        if scene is None:
            clip = photo_clip(rng, pictures, num_frames)
        else:
            clip = render(scene, FRAMES * int(rng.integers(LATENT_FRAMES)), num_frames)
        sources.append(clip)
        targets.append(clip if style == "none" else apply_style(clip, style))
        items.append(Item(kind, scene, style))
    return PixelWindows(np.stack(sources), np.stack(targets), tuple(items))


@torch.no_grad()
def _latents(
    windows: PixelWindows,
    codec: TinyCodec,
    trainee: Trainee,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
) -> Tensor:
    """Latents to decode: the DiT's predictions after the true past, or the encoded ones."""
    device = codec.latent_mean_C.device
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    clean = codec.encode_clips(to_tensor(windows.target, device)).float()
    latents = clean
    if rng.random() < PREDICTED_SHARE:
        source = codec.encode_clips(to_tensor(windows.source, device)).float()
        conditions, prompts = [], []
        for item, frames in zip(windows.items, source, strict=True):
            condition, is_conditioned = condition_of(rng, item, frames)
            conditions.append(condition)
            prompts.append(prompt_of(rng, item, is_conditioned))
        ids_BM, is_word_BM = pad_prompts(vocabulary, prompts, TEXT_LEN)
        counts = torch.ones(clean.shape[:2])
        batch = TrainingBatch(clean, torch.stack(conditions), ids_BM, is_word_BM, counts).to(device)
        view = losses.Windows(trainee.dit, trainee.text, batch, generator)
        low, high = SIGMAS
        sigma_BN = low + (high - low) * view.uniform(*view.shape)
        with fast_arithmetic(device):
            latents = losses.predict_from_clean(view, view.mix(clean, sigma_BN), clean, sigma_BN)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    return latents.float() + LATENT_NOISE * noise
