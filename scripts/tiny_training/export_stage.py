"""The last stage: averaged weights of all parts into the one file that the package ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from streamgen.models.tiny.bundle import save_tiny
from streamgen.models.tiny.codec import LATENT_CHANNELS, TinyCodec
from streamgen.models.tiny.header import TextShape, TinyHeader
from streamgen.models.tiny.text import Vocabulary
from tiny_training.dit_stage import Trainee
from tiny_training.model import TEXT_DIM, TEXT_LAYERS, Sizes, dit_config, make_text_encoder
from tiny_world import STYLES, VOCABULARY, World, caption, sample_scene, style_caption
from tiny_world.styles import style_phrase

NUM_CAPTIONS = 20_000  # that show which words are in use


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
    everything = Vocabulary(VOCABULARY)
    trainee = Trainee(sizes, LATENT_CHANNELS, everything)
    trainee.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    vocabulary = trained_vocabulary(everything, world)
    rows = [everything.tokens.index(token) for token in vocabulary.tokens]
    text = make_text_encoder(vocabulary)
    trained = trainee.text.state_dict()
    text.load_state_dict({**trained, "embedding.weight": trained["embedding.weight"][rows]})
    codec = TinyCodec()
    codec.load_state_dict(load_file(codec_weights))
    shapes = TinyHeader(
        dit=dit_config(sizes, LATENT_CHANNELS),
        text=TextShape(dim=TEXT_DIM, num_layers=TEXT_LAYERS),
        vocabulary=vocabulary.words,
        knowledge=knowledge(world, ("sketch", "neon", "sepia", "comic", "ice")),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    save_tiny(target, shapes, dit=trainee.dit, codec=codec, text=text)


def trained_vocabulary(everything: Vocabulary, world: World) -> Vocabulary:
    """The words whose tokens captions of this world use: the others were never trained."""
    rng = np.random.default_rng(0)
    used: set[str] = set()
    for _ in range(NUM_CAPTIONS):
        style = str(rng.choice(STYLES))
        words = f"{caption(sample_scene(rng, world), rng)} {style_caption(style, rng)}"
        used.update(everything.canonical(f"{words} {style_phrase(style, rng)}"))
    return Vocabulary({word: token for word, token in everything.words.items() if token in used})


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
