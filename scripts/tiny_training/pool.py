"""A pool of encoded clips on disk: made by one process, read by the one that trains.

Every clip is 8 latent frames (32 pixel frames, one period of the world's motions). Three kinds:
`world` (a procedural clip), `styled` (a procedural clip and the same in a style) and `picture`
(a real clip and the same in a style). A shard is written under another name and renamed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamgen.models.tiny.codec import TinyCodec
from tiny_world.photos import load_pictures, photo_clip
from tiny_world.render import render
from tiny_world.scene import Scene, World, sample_scene
from tiny_world.styles import STYLES, apply_style

LATENT_FRAMES = 8
PIXEL_FRAMES = 32
FRAMES_PER_LATENT = PIXEL_FRAMES // LATENT_FRAMES
SHARD_CLIPS = 100
KINDS = ("world", "styled", "picture")
KIND_SHARES = (0.5, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class Item:
    """One clip: its kind, its scene (None for a real one) and the style of its target."""

    kind: str
    scene: Scene | None
    style: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Clips in fp16 latents, [clip, frame, C, H, W]; source equals target where no style is."""

    items: tuple[Item, ...]
    source: Tensor
    target: Tensor
    still: Tensor
    """One latent frame a clip, [clip, C, H, W]: the target's first picture, standing still."""


def make_shard(
    codec: TinyCodec, world: World, pictures: list[np.ndarray], rng: np.random.Generator
) -> Shard:
    """Render, style and encode SHARD_CLIPS clips."""
    styles = [style for style in STYLES if style != "none"]
    items, sources, targets, stills = [], [], [], []
    for _ in range(SHARD_CLIPS):
        kind = str(rng.choice(KINDS, p=KIND_SHARES))
        style = "none" if kind == "world" else str(rng.choice(styles))
        if kind == "picture":
            scene = None
            clip = photo_clip(rng, pictures, PIXEL_FRAMES)
            style = "none" if rng.random() < 0.15 else style
        else:
            scene = sample_scene(rng, world)
            clip = render(scene, 0, PIXEL_FRAMES)
        source = encode_pixels(codec, clip)
        shown = clip if style == "none" else apply_style(clip, style)
        items.append(Item(kind, scene, style))
        sources.append(source)
        targets.append(source if style == "none" else encode_pixels(codec, shown))
        stills.append(encode_pixels(codec, np.repeat(shown[:1], FRAMES_PER_LATENT, axis=0))[0])
    return Shard(tuple(items), torch.stack(sources), torch.stack(targets), torch.stack(stills))


@torch.inference_mode()
def encode_pixels(codec: TinyCodec, clip_THWC: np.ndarray) -> Tensor:
    """uint8 pictures to fp16 latents, FCHW."""
    pixels = torch.from_numpy(clip_THWC).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
    return codec.encode_clips(pixels)[0].half()


def save_shard(shard: Shard, path: Path) -> None:
    """Write a shard so that a reader never sees half of one."""
    partial = path.with_suffix(".partial")
    facts = [
        {"kind": item.kind, "style": item.style, "scene": item.scene and asdict(item.scene)}
        for item in shard.items
    ]
    tensors = {"source": shard.source, "target": shard.target, "still": shard.still}
    torch.save({"facts": json.dumps(facts), **tensors}, partial)
    partial.replace(path)


def load_shard(path: Path) -> Shard:
    """Read what `save_shard` wrote."""
    stored = torch.load(path, weights_only=True)
    items = tuple(
        Item(fact["kind"], Scene(**fact["scene"]) if fact["scene"] else None, fact["style"])
        for fact in json.loads(stored["facts"])
    )
    return Shard(items, stored["source"], stored["target"], stored["still"])


def fill_pool(
    folder: Path, codec: TinyCodec, world: World, *, pictures: Path, num_clips: int, seed: int
) -> None:
    """Write shards until the pool has `num_clips`; goes on where an interrupted run ended."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    stills = load_pictures(pictures)
    for number in range(-(-num_clips // SHARD_CLIPS)):
        path = folder / f"shard_{number:05d}.pt"
        if not path.exists():
            save_shard(
                make_shard(codec, world, stills, np.random.default_rng((seed, number))), path
            )


class LatentPool:
    """The shards that exist so far, held in memory; `refresh` takes in new ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[Path] = set()
        self.items: list[Item] = []
        self._source: list[Tensor] = []
        self._target: list[Tensor] = []
        self._still: list[Tensor] = []
        self._by_kind: dict[str, list[int]] = {kind: [] for kind in KINDS}

    def refresh(self) -> None:
        for path in sorted(self._folder.glob("shard_*.pt")):
            if path not in self._seen:
                shard = load_shard(path)
                self._seen.add(path)
                for number, item in enumerate(shard.items, start=len(self.items)):
                    self._by_kind[item.kind].append(number)
                self.items.extend(shard.items)
                self._source.extend(shard.source.unbind(0))
                self._target.extend(shard.target.unbind(0))
                self._still.extend(shard.still.unbind(0))

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, rng: np.random.Generator, shares: dict[str, float]) -> int:
        """Index of a clip: its kind by these shares, then any of that kind."""
        kind = str(rng.choice(list(shares), p=list(shares.values())))
        of_kind = self._by_kind[kind]
        return of_kind[int(rng.integers(len(of_kind)))]

    def source(self, index: int) -> Tensor:
        return self._source[index]

    def target(self, index: int) -> Tensor:
        return self._target[index]

    def still(self, index: int) -> Tensor:
        return self._still[index]
