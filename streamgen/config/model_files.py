"""Section [wan]: the files that a Wan model is published in. Paths, or hub:OWNER/NAME/FILE."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from streamgen.errors import ConfigError

LORA_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """One LoRA, and how strongly it is applied at the start."""

    name: str  # by which its scale is changed while streaming: letters, digits, _ . -
    weights: str  # file, in any published format
    scale: float  # -10 to 10; 1 is as trained, 0 is off

    def __post_init__(self) -> None:
        if not LORA_NAME.fullmatch(self.name):
            raise ConfigError(
                f'wan.loras: the name "{self.name}" is not made of up to 64 letters, digits, _ . -;'
                f" choose a shorter word"
            )
        if not self.weights:
            raise ConfigError(f"wan.loras: {self.name} has no weights; name its file")
        if not (math.isfinite(self.scale) and abs(self.scale) <= 10):
            raise ConfigError(
                f"wan.loras: {self.name} has scale {self.scale}, it must be in [-10, 10]; use 1"
            )


@dataclass(frozen=True, slots=True)
class WanFilesConfig:
    """Everything of a Wan model beside model.weights, which is the diffusion transformer."""

    size: Literal["1.3B", "14B", "any"]  # what model.weights must be; any: as it comes
    state_dict: str  # which one of a training checkpoint, "generator_ema"; "": as published
    codec: Literal["vae", "taehv"]  # taehv: small and fast, slightly softer pictures
    vae_weights: str  # file or folder, read with codec = "vae"
    taehv_weights: str  # file, read with codec = "taehv"
    latent_norm: Literal["standard", "raw_encode"]  # raw_encode: input latents not normalised
    text_weights: str  # UMT5-XXL: the published file, or the folder of a whole model
    tokenizer: str  # folder; "": beside text_weights
    text_place: Literal["device", "host"]  # host: off the GPU but while a prompt is encoded
    loras: tuple[LoraConfig, ...]
    license: str  # of model.weights, for lists
    page: str  # where model.weights come from, for lists

    def __post_init__(self) -> None:
        for key in ("vae_weights", "taehv_weights", "text_weights"):
            if not getattr(self, key):
                raise ConfigError(f"wan.{key} must not be empty; name a file")
        names = [lora.name for lora in self.loras]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigError(f"wan.loras: {min(twice)!r} stands there twice; give two names")
        if self.codec == "taehv" and self.latent_norm != "standard":
            raise ConfigError(
                'wan.latent_norm = "raw_encode" has no effect with wan.codec = "taehv", whose '
                'latents are normalised ones; set it to "standard" or wan.codec = "vae"'
            )
