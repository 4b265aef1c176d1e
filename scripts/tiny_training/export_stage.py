"""The last stage: averaged weights of all parts into the one file that the package ships."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from streamgen.models.tiny.bundle import TextShape, TinyShapes, save_tiny
from streamgen.models.tiny.codec import LATENT_CHANNELS, TinyCodec
from streamgen.models.tiny.text import Vocabulary
from tiny_training.dit_stage import Trainee
from tiny_training.model import TEXT_DIM, TEXT_LAYERS, Sizes, dit_config
from tiny_world import VOCABULARY, World


def knowledge(world: World, styles: tuple[str, ...]) -> str:
    """What a world's model can be asked for, in words."""
    return (
        f"draws one {_either(world.shapes)}, {_either(world.colours)}, {_either(world.motions)}, "
        f"over {_either(world.backgrounds)}, at {_either(world.times)}; restyles any video as "
        f"{_either(styles)}. Synonyms are understood, other words are not."
    )


def export(
    checkpoint: Path, codec_weights: Path, target: Path, *, world: World, sizes: Sizes
) -> None:
    """Write the shipped file from a DiT checkpoint and the codec's weights."""
    vocabulary = Vocabulary(VOCABULARY)
    trainee = Trainee(sizes, LATENT_CHANNELS, vocabulary)
    trainee.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    codec = TinyCodec()
    codec.load_state_dict(load_file(codec_weights))
    shapes = TinyShapes(
        dit=dit_config(sizes, LATENT_CHANNELS),
        text=TextShape(dim=TEXT_DIM, num_layers=TEXT_LAYERS),
        vocabulary=vocabulary.words,
        knowledge=knowledge(world, ("sketch", "neon", "sepia", "comic", "ice")),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    save_tiny(target, shapes, dit=trainee.dit, codec=codec, text=trainee.text)


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
