"""The DiT's training: single latent frames first, then windows; resumable at any step."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import signal
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from streamgen.models.tiny.bundle import load_tiny
from streamgen.models.tiny.text import TinyTextEncoder, Vocabulary
from streamgen.models.wan.dit import WanDiT
from tiny_training import losses
from tiny_training.batches import draw
from tiny_training.model import TEXT_LEN, Sizes, dit_config, make_dit, make_text_encoder
from tiny_training.muon import Muon
from tiny_training.pool import LatentPool
from tiny_training.rollout import Rollouts

WINDOW_FRAMES = 4  # a sink, two of the past, and the newest: they hold position and velocity
SAVE_EVERY_S = 120.0
LOG_EVERY = 20
MATRIX_LR, OTHER_LR = 2e-3, 1e-3
EMA_DECAY = 0.996
IMAGE_REST = 0.1  # of the steps after the first part are single latent frames, too
SELF_FORCED_SHARE = 0.7  # of the steps of that last part
ROLLOUT_SHARE = 0.7  # of the steps of the part in which streams are rolled out
TEACHER_FORCING_SHARE = 0.65  # of windows; the others have one noise level


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and on how much at once."""

    seconds: float
    """Wall time of the whole stage, restarts included."""
    image_share: float
    """Share of the time spent on single latent frames."""
    self_forced_share: float
    """Share of the time, at the end, in which inputs and context may be the model's own."""
    rollout_share: float
    """Share of the time, at the end, in which whole streams are rolled out, too."""
    rate: float
    """Factor on the learning rates: 1 from scratch, less to train on from finished weights."""
    image_batch: int
    window_batch: int
    rollout_batch: int
    """Streams that one step of roll-out carries on."""
    seed: int


class Trainee(nn.Module):
    """The DiT and its text encoder, trained together."""

    def __init__(self, sizes: Sizes, latent_channels: int, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.dit = make_dit(dit_config(sizes, latent_channels))
        self.text = make_text_encoder(vocabulary)


class Run:
    """Everything that a checkpoint holds: weights, their average, optimisers, step, time spent."""

    def __init__(self, trainee: Trainee, device: torch.device) -> None:
        self.device = device
        self.trainee = trainee.to(device)
        self.average = copy.deepcopy(trainee).requires_grad_(False)
        matrices, others = split_parameters(trainee)
        self.muon = Muon(
            matrices, lr=MATRIX_LR, momentum=0.95, weight_decay=0.01, dtype=fast_dtype(device)
        )
        self.adam = torch.optim.AdamW(others, lr=OTHER_LR, betas=(0.9, 0.98), weight_decay=0.0)
        self.step = 0
        self.spent_s = 0.0

    def save(self, path: Path) -> None:
        state = {
            "trainee": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.trainee.load_state_dict(state["trainee"])
        self.average.load_state_dict(state["average"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.step, self.spent_s = state["step"], state["spent_s"]

    def update(self, loss: Tensor, progress: float, rate: float) -> None:
        """One optimiser step at `progress` in [0, 1] of the run; then the average follows."""
        factor = rate * min(1.0, (self.step + 1) / 50) * max(0.02, min(1.0, 2.5 * (1 - progress)))
        for group in self.muon.param_groups:
            group["lr"] = MATRIX_LR * factor
        for group in self.adam.param_groups:
            group["lr"] = OTHER_LR * factor
        self.muon.zero_grad()
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        self.muon.step()
        self.adam.step()
        self.step += 1
        decay = min(EMA_DECAY, 1 - 1 / (self.step + 1) ** 0.8)
        with torch.no_grad():
            for ours, theirs in zip(
                self.average.parameters(), self.trainee.parameters(), strict=True
            ):
                ours.lerp_(theirs, 1 - decay)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and on CPUs that multiply it in hardware (four times as fast there)."""
    is_fast = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if is_fast else torch.float32


@contextlib.contextmanager
def fast_arithmetic(device: torch.device) -> Generator[None]:
    """Mixed precision, and on a CPU the plain attention.

    At this length it trains there in less than half the time of the fused one.
    """
    dtype = fast_dtype(device)
    with contextlib.ExitStack() as stack:
        if dtype is not torch.float32:
            stack.enter_context(torch.autocast(device.type, dtype))
        if device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def split_parameters(trainee: Trainee) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices inside blocks for Muon; embeddings, head, norms and biases for AdamW."""
    matrices, others = [], []
    for name, parameter in trainee.named_parameters():
        is_inner = "blocks." in name or "layers." in name or "time_projection" in name
        (matrices if is_inner and parameter.ndim == 2 else others).append(parameter)
    return matrices, others


def train_dit(
    folder: Path,
    pool: LatentPool,
    vocabulary: Vocabulary,
    *,
    sizes: Sizes,
    latent_channels: int,
    plan: Plan,
    device: torch.device,
    start: Path | None = None,
) -> Path:
    """Train until `plan.seconds` are spent; returns the checkpoint's path.

    `start` is a shipped file to train on from, where there is no checkpoint yet.
    """
    torch.manual_seed(plan.seed)
    trainee = Trainee(sizes, latent_channels, vocabulary)
    path = folder / "dit.pt"
    if start is not None and not path.exists():
        take_weights(trainee, start, vocabulary)
    run = Run(trainee, device)
    if path.exists():
        run.load(path)
    rollouts = Rollouts(
        run.trainee.dit,
        run.trainee.text,
        pool,
        vocabulary,
        num_streams=plan.rollout_batch,
        device=device,
    )
    log = (folder / "dit_log.jsonl").open("a")
    saved_at, recent = time.monotonic(), []
    is_asked_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: is_asked_to_stop.set())
    while run.spent_s < plan.seconds and not is_asked_to_stop.is_set():
        began = time.monotonic()
        progress = run.spent_s / plan.seconds
        loss = _loss(run, pool, vocabulary, rollouts, plan, progress)
        run.update(loss, progress, plan.rate)
        recent.append(float(loss.detach()))
        if not math.isfinite(recent[-1]):
            raise SystemExit(f"loss is {recent[-1]} at step {run.step}; lower the learning rates")
        run.spent_s += time.monotonic() - began
        if run.step % LOG_EVERY == 0:
            line = {
                "step": run.step,
                "spent_s": round(run.spent_s, 1),
                "loss": float(np.mean(recent)),
            }
            log.write(json.dumps({**line, "clips": len(pool)}) + "\n")
            log.flush()
            recent.clear()
            pool.refresh()
        if time.monotonic() - saved_at > SAVE_EVERY_S:
            run.save(path)
            saved_at = time.monotonic()
    run.save(path)
    return path


def take_weights(trainee: Trainee, path: Path, vocabulary: Vocabulary) -> None:
    """Start from a shipped file; words that it does not know keep their random embedding."""
    bundle = load_tiny(str(path), device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(bundle.dit, WanDiT)
    assert isinstance(bundle.text, TinyTextEncoder)
    trainee.dit.load_state_dict(bundle.dit.state_dict())
    state = bundle.text.state_dict()
    embedding = trainee.text.embedding.weight.detach().clone()
    rows = [vocabulary.tokens.index(token) for token in bundle.text.vocabulary.tokens]
    embedding[rows] = state["embedding.weight"]
    trainee.text.load_state_dict({**state, "embedding.weight": embedding})
    trainee.requires_grad_(True)


def _loss(
    run: Run,
    pool: LatentPool,
    vocabulary: Vocabulary,
    rollouts: Rollouts,
    plan: Plan,
    progress: float,
) -> Tensor:
    """The loss of one step; what is drawn depends on the seed and the step alone.

    But for streams that are rolled out, which go on from where this process left them.
    """
    rng = np.random.default_rng((plan.seed, run.step))
    if progress >= 1 - plan.rollout_share and rng.random() < ROLLOUT_SHARE:
        with fast_arithmetic(run.device):
            return rollouts.turn(rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    is_image = progress < plan.image_share or rng.random() < IMAGE_REST
    size = plan.image_batch if is_image else plan.window_batch
    frames = 1 if is_image else WINDOW_FRAMES
    predict = losses.predict_from_equal
    if not is_image and rng.random() < TEACHER_FORCING_SHARE:
        predict = losses.predict_from_clean
        size //= 2  # its sequences are nearly twice as long
    is_self_forced = progress > 1 - plan.self_forced_share and rng.random() < SELF_FORCED_SHARE
    loss_of = losses.self_forced_loss if is_self_forced else losses.plain_loss
    batch = draw(pool, vocabulary, rng, size=size, frames=frames, text_len=TEXT_LEN)
    windows = losses.Windows(run.trainee.dit, run.trainee.text, batch.to(run.device), generator)
    with fast_arithmetic(run.device):
        return loss_of(windows, predict)
