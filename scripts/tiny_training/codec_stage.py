"""Train the codec of the tiny model: principal components first, then everything by gradient.

A run continues from its checkpoint, and time already spent counts.  Which clips of the pool make a
batch, and the noise, are functions of (seed, step); what the pool holds is a matter of timing.
Writes into its folder: codec.pt (checkpoint), codec.jsonl (log), codec.safetensors (fp16
weights; of every checkpoint, if the encoder is kept).

Shapes: B clips, T pixel frames, F latent frames, G latent frames or T pixel frames of all clips in
one axis, C channels, D pixel values of one latent cell, N cells, H W height and width.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from streamgen.clock import MonotonicClock
from streamgen.models.tiny.codec import (
    CELL,
    LATENT_CHANNELS,
    Decoder,
    Encoder,
    TinyCodec,
    fold_pixels,
)
from streamgen.types import Pixels
from tiny_training.codec_clips import Pool, held_out_clips
from tiny_training.muon import orthogonalise

logger = logging.getLogger(__name__)

BATCH = 12  # clips
POOL_START = 256  # clips drawn before training begins
SCALE_POWER = 0.6  # a latent channel's std is that of its principal component to this power
BRANCH_GAIN = 1.7  # makes up for what SiLU takes of a feature's size
LATENT_NOISE = 0.07  # std, of latents whose variance is 1 on average
MUON_RATE = 4e-3  # of the convolutions of the branches
LEARNING_RATE = 1.5e-3  # of their biases and of their last layers
ENCODER_TRANSFORM_RATE = 1e-5  # its weights are about 0.002: the branches' rate would destroy them
DECODER_TRANSFORM_RATE = 5e-5  # its weights are about 0.1
WARM_UP_STEPS = 100
CHECKPOINT_EVERY_S = 90.0


def train_codec(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    pictures: Path,
    device: torch.device,
    encoder_from: Path | None = None,
) -> None:
    """Train for `seconds` in all, continuing what is in `folder`; write codec.safetensors there.

    `pictures` is a folder of photographs as `tiny_world.photos.load_pictures` takes it.
    `encoder_from` is a state dict of a codec whose encoder and statistics are kept as they are, so
    that latents made with it stay valid: then only the decoder learns.
    The calling program must guard its main part: the process that draws clips is spawned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pool = Pool.start(seed=seed, pictures=pictures)
    try:
        pool.wait_for(POOL_START)
        codec = starting_codec(pool.pixels(np.arange(POOL_START)), seed, encoder_from)
        codec = codec.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        trainer = Trainer(codec, folder, seconds=seconds, seed=seed, device=device)
        held_out = held_out_clips(seed, pictures)
        if not trainer.resume():
            trainer.log(held_out)
        trainer.train(pool, held_out)
        if encoder_from is None:
            calibrate(codec, pool.pixels(np.arange(POOL_START)))
        trainer.log(held_out)
        export(codec, folder / "codec.safetensors")
    finally:
        pool.stop()


def starting_codec(clips: Pixels, seed: int, encoder_from: Path | None) -> TinyCodec:
    """A codec that is linear so far: by components of these clips, or as another codec is."""
    torch.manual_seed(seed)
    codec = TinyCodec()
    if encoder_from is None:
        initialise_from_components(codec, clips)
        initialise_branch(codec.encoder)
    else:
        codec.load_state_dict(torch.load(encoder_from, map_location="cpu", weights_only=True))
        codec.encoder.requires_grad_(False)
    initialise_branch(codec.decoder)
    return codec


class Trainer:
    """Codec, optimizer and the time and steps spent: what a checkpoint holds."""

    def __init__(
        self, codec: TinyCodec, folder: Path, *, seconds: float, seed: int, device: torch.device
    ) -> None:
        self._codec = codec
        self._optimizers = _optimizers(self._codec)
        self._folder, self._seconds, self._seed, self._device = folder, seconds, seed, device
        self._keeps_encoder = not any(p.requires_grad for p in codec.encoder.parameters())
        self._clock = MonotonicClock()
        # Compiled, the loss is one sweep over the pixels instead of fifteen.
        self._loss_of = torch.compile(reconstruction_loss)
        self._step, self._trained_s, self._loss = 0, 0.0, math.nan

    def resume(self) -> bool:
        """Load the checkpoint of the folder; False if there is none."""
        path = self._folder / "codec.pt"
        if not path.exists():
            return False
        saved = torch.load(path, map_location=self._device, weights_only=True)
        self._codec.load_state_dict(saved["codec"])
        for optimizer, state in zip(self._optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self._step, self._trained_s = saved["step"], saved["trained_s"]
        logger.info("continue at step %d, %.0f s", self._step, self._trained_s)
        return True

    def train(self, pool: Pool, held_out: dict[str, Pixels]) -> None:
        saved_s = self._trained_s
        while self._trained_s < self._seconds:
            started_s = self._clock.now()
            self._train_step(pool)
            self._trained_s += self._clock.now() - started_s
            if self._trained_s - saved_s > CHECKPOINT_EVERY_S:
                saved_s = self._trained_s
                pool.check()
                self._save()
                if self._keeps_encoder:
                    export(self._codec, self._folder / "codec.safetensors")
                self.log(held_out)
        self._save()

    def log(self, held_out: dict[str, Pixels]) -> None:
        """One JSON line with the loss and the PSNR (dB) of every kind of held-out clips."""
        record: dict[str, float] = {
            "step": self._step,
            "trained_s": round(self._trained_s, 1),
            "loss": round(self._loss, 5),
        }
        for name, clips in held_out.items():
            record[f"psnr_{name}"] = round(measure_psnr(self._codec, clips), 2)
        with (self._folder / "codec.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        logger.info("%s", record)

    def _train_step(self, pool: Pool) -> None:
        rng = np.random.default_rng((self._seed, self._step))
        noise_rng = torch.Generator(self._device).manual_seed(self._seed * 1_000_003 + self._step)
        pixels_BTCHW = to_tensor(pool.sample(rng, BATCH), self._device)
        if rng.random() < 0.5:
            pixels_BTCHW = pixels_BTCHW.flip(-1)
        with torch.autocast(self._device.type, torch.bfloat16):
            latents_BFCHW = self._codec.encode_clips(pixels_BTCHW).float()
            noise_BFCHW = torch.randn(latents_BFCHW.shape, generator=noise_rng, device=self._device)
            # The noise grows with the latents: making them louder must not pay.
            loudness = latents_BFCHW.square().mean().sqrt()
            noisy_BFCHW = latents_BFCHW + LATENT_NOISE * loudness * noise_BFCHW
            decoded_BTCHW = self._codec.decode_clips(noisy_BFCHW).float()
        loss = self._loss_of(decoded_BTCHW.flatten(0, 1), pixels_BTCHW.flatten(0, 1))
        loss = loss + 0.01 * (loudness.log() ** 2)
        self._codec.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._codec.parameters(), 1.0)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * self._rate()
            with torch.autocast(self._device.type, torch.bfloat16):
                optimizer.step()
        self._step += 1
        self._loss = float(loss.detach())

    def _rate(self) -> float:
        """Share of the peak: linear warm-up over steps, half a cosine to zero over the time."""
        progress = min(self._trained_s / self._seconds, 1.0)
        warm_up = min((self._step + 1) / WARM_UP_STEPS, 1.0)
        return warm_up * 0.5 * (1 + math.cos(math.pi * progress))

    def _save(self) -> None:
        saved = {
            "codec": self._codec.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self._step,
            "trained_s": self._trained_s,
        }
        scratch = self._folder / "codec.pt.new"
        torch.save(saved, scratch)
        scratch.replace(self._folder / "codec.pt")


def reconstruction_loss(decoded_GCHW: Tensor, pixels_GCHW: Tensor) -> Tensor:
    """Squared and absolute error, and absolute error of gradients and at a quarter of the size.

    Absolute errors keep edges sharp; squared ones see objects in the wrong place, which are rare.
    """
    error_GCHW = decoded_GCHW - pixels_GCHW
    small_GCHW = functional.avg_pool2d(error_GCHW, 4)
    edges = error_GCHW.diff(dim=-1).abs().mean() + error_GCHW.diff(dim=-2).abs().mean()
    return (
        error_GCHW.abs().mean()
        + 8 * error_GCHW.square().mean()
        + 0.25 * edges
        + 0.5 * small_GCHW.abs().mean()
    )


@torch.no_grad()
def initialise_branch(half: Encoder | Decoder) -> None:
    """Keep the size of features from layer to layer; layers that start at zero stay so."""
    for name, module in half.named_modules():
        if isinstance(module, torch.nn.Conv2d) and name != "transform" and module.weight.any():
            module.weight.normal_(0, BRANCH_GAIN / module.weight[0].numel() ** 0.5)
            _bias(module).zero_()


@torch.no_grad()
def initialise_from_components(codec: TinyCodec, clips: Pixels) -> None:
    """Set both linear transforms to the principal components of 4 frames x 16x16 pixels.

    Channel i holds component i scaled to std ~ sigma_i ** SCALE_POWER, variance 1 on average.
    """
    weight = codec.encoder.transform.weight
    pixels_BTCHW = to_tensor(clips, torch.device("cpu"))
    cells_GDHW = fold_pixels(pixels_BTCHW.flatten(0, 1), side=CELL)
    cells_ND = rearrange(cells_GDHW, "g d h w -> (g h w) d")
    mean_D = cells_ND.mean(dim=0)
    centred_ND = cells_ND - mean_D
    variance_D, vectors_DD = torch.linalg.eigh(centred_ND.T @ centred_ND / len(cells_ND))
    sigma_C = variance_D.flip(0)[:LATENT_CHANNELS].sqrt()
    vectors_DC = vectors_DD.flip(1)[:, :LATENT_CHANNELS]
    std_C = sigma_C**SCALE_POWER
    gain_C = std_C / std_C.square().mean().sqrt() / sigma_C
    encode_CD, decode_DC = (vectors_DC * gain_C).T, vectors_DC / gain_C
    weight.copy_(encode_CD[:, :, None, None])
    _bias(codec.encoder.transform).copy_(-encode_CD @ mean_D)
    codec.decoder.transform.weight.copy_(decode_DC[:, :, None, None])
    _bias(codec.decoder.transform).copy_(mean_D)


@torch.no_grad()
def calibrate(codec: TinyCodec, clips: Pixels) -> None:
    """Set the statistics of normalisation: channels centred, variance 1 on average over channels.

    One scale serves all channels: training kept their loudness near the power law it began with.
    """
    codec.latent_mean_C.zero_()
    codec.latent_scale_C.fill_(1)
    device = codec.latent_mean_C.device
    latents = [codec.encode_clips(to_tensor(part, device)) for part in np.array_split(clips, 24)]
    latents_NC = rearrange(torch.cat(latents), "b f c h w -> (b f h w) c")
    codec.latent_mean_C.copy_(latents_NC.mean(dim=0))
    codec.latent_scale_C.fill_(float(latents_NC.var(dim=0).mean().rsqrt()))


@torch.no_grad()
def measure_psnr(codec: TinyCodec, clips: Pixels) -> float:
    """Peak signal to noise over all clips, dB: of the mean squared error, in 32 bits."""
    errors: list[float] = []
    for clip in clips:
        pixels_BTCHW = to_tensor(clip[None], codec.latent_mean_C.device)
        decoded_BTCHW = codec.decode_clips(codec.encode_clips(pixels_BTCHW)).clamp(-1, 1)
        errors.append(float((decoded_BTCHW - pixels_BTCHW).square().mean()))
    return 10 * math.log10(4 / float(np.mean(errors)))


def export(codec: TinyCodec, path: Path) -> None:
    """Write the weights and statistics as fp16; the file appears complete or not at all."""
    weights = {name: value.half().contiguous().cpu() for name, value in codec.state_dict().items()}
    scratch = path.with_suffix(".new")
    save_file(weights, scratch)
    scratch.replace(path)


def to_tensor(clips: Pixels, device: torch.device) -> Tensor:
    """uint8 [B, T, H, W, 3] -> float pixels_BTCHW in [-1, 1]."""
    pixels_BTHWC = torch.from_numpy(clips).to(device)
    return rearrange(pixels_BTHWC, "b t h w c -> b t c h w").float() / 127.5 - 1


class ConvolutionMuon(torch.optim.Optimizer):
    """Muon (Jordan 2024) on kernels seen as matrices [out, in * 9]; momentum 0.9, Nesterov.

    Updates have RMS 0.2 * lr, as AdamW's about have (Liu et al. 2025, arXiv:2502.16982, eq. 4).
    """

    def __init__(self, kernels: list[Tensor], *, lr: float) -> None:
        super().__init__(kernels, {"lr": lr, "peak": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for kernel in group["params"]:
                by_shape.setdefault(kernel.shape, []).append(kernel)
            for kernels in by_shape.values():
                updates = orthogonalise(torch.stack([self._direction(k) for k in kernels])).float()
                gain = 0.2 * max(updates.shape[1:]) ** 0.5
                for kernel, update in zip(kernels, updates, strict=True):
                    kernel.add_(update.view_as(kernel), alpha=-group["lr"] * gain)

    def _direction(self, kernel: Tensor) -> Tensor:
        state = self.state[kernel]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(kernel)
        assert kernel.grad is not None
        state["momentum"].lerp_(kernel.grad, 0.1)
        return kernel.grad.lerp(state["momentum"], 0.9).flatten(1)


def _optimizers(codec: TinyCodec) -> list[torch.optim.Optimizer]:
    """Muon for the kernels inside the branches, AdamW with three rates for the rest."""
    kernels: list[Tensor] = []
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in codec.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("encoder.transform"):
            groups.setdefault(ENCODER_TRANSFORM_RATE, []).append(parameter)
        elif name.startswith("decoder.transform"):
            groups.setdefault(DECODER_TRANSFORM_RATE, []).append(parameter)
        elif parameter.ndim == 1 or ".out." in name:
            groups.setdefault(LEARNING_RATE, []).append(parameter)
        else:
            kernels.append(parameter)
    rest = [{"params": values, "peak": peak, "lr": peak} for peak, values in groups.items()]
    return [
        ConvolutionMuon(kernels, lr=MUON_RATE),
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=1e-3, fused=True),
    ]


def _bias(convolution: torch.nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias
