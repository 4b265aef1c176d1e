"""What a text-to-video stream begins with: a picture, a clip, or where a saved one ended.

Legend: T pixel frames, F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from streamgen.engine.session import Session
from streamgen.engine.start import Opening
from streamgen.errors import CheckpointError, ConfigError, SinkError, SourceError
from streamgen.media.opening import open_source
from streamgen.media.pixels import Fit, Framing
from streamgen.serving.build import Pipeline
from streamgen.types import Clip, Pixels

FORMAT = "streamgen-stream-1"
MAX_OPENING_FRAMES = 128  # pixel frames: far more than any window looks back on


@dataclass(frozen=True, slots=True)
class SavedStream:
    """Where a stream was when it was saved."""

    latents_FCHW: Tensor
    prompt: str
    seed: int
    family: str


def picture_frames(path: str, pipeline: Pipeline, fit: Fit) -> list[Pixels]:
    """The pictures of a file at the size and rate of the pipeline's streams.

    Raises SourceError if it cannot be read, ConfigError if it is too long.
    """
    framing = Framing(pipeline.picture_size, fit=fit)
    fps = pipeline.config.picture.fps
    source = open_source(path, clock=pipeline.clock, size=pipeline.picture_size, fps=fps)
    try:
        frames: list[Pixels] = []
        while (frame := source.read()) is not None:
            frames.append(framing.apply(frame.pixels))
            if len(frames) > MAX_OPENING_FRAMES:
                raise ConfigError(
                    f"{path} is longer than the {MAX_OPENING_FRAMES / fps:g} s that a stream can "
                    f"begin with; cut it to the part to go on from"
                )
    finally:
        source.close()
    if not frames:
        raise SourceError(f"{path} has no pictures; give another file")
    return frames


def opening_from_pictures(frames: list[Pixels], pipeline: Pipeline) -> Opening:
    """Encode pictures, H W 3 each of the stream's size, as the first latent frames of a stream.

    The last picture is repeated where the codec needs more of them for a whole latent frame; so a
    single picture stands still for one.
    """
    codec, recipe = pipeline.bundle.codec, pipeline.recipe
    num_latents = 1
    while codec.facts.num_pixel_frames(num_latents, True) < len(frames):
        num_latents += 1
    wanted = codec.facts.num_pixel_frames(num_latents, True)
    filled = [*frames, *[frames[-1]] * (wanted - len(frames))]
    encoder = pipeline.new_encoder()
    parts: list[Tensor] = []
    taken = 0
    opened = recipe.opening_with(num_latents)
    for chunk in range(1 + (num_latents - opened.first_chunk_frames) // opened.chunk_frames):
        count = codec.facts.num_pixel_frames(opened.num_frames(chunk), chunk == 0)
        clip = Clip(np.stack(filled[taken : taken + count]), 0.0, 0.0)
        parts.append(encoder.encode(encoder.pixels(clip)))
        taken += count
    return Opening(torch.cat(parts), is_shown=True)


def save_stream(path: Path, session: Session, pipeline: Pipeline, prompt: str) -> None:
    """Write where a stream is, so that another one can go on from there.

    The file appears complete or not at all. Raises SinkError if nothing is finished yet, and if
    the file cannot be written.
    """
    frames = session.past.frames()
    if not frames:
        raise SinkError(f"{path}: the stream has made no picture yet; save it later")
    facts = {"prompt": prompt, "seed": session.seed, "family": pipeline.config.family}
    partial = path.with_name(f".{path.name}.partial")
    try:
        tensors = {"latents": torch.stack(frames).cpu().contiguous()}
        save_file(tensors, partial, {"format": FORMAT, "stream": json.dumps(facts)})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise SinkError(f"{path}: cannot be written ({error}); choose another place") from error


def load_stream(path: Path) -> SavedStream:
    """Read what `save_stream` wrote; CheckpointError if it is something else."""
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path} is no saved stream; give a file of --save")
            facts = json.loads(metadata["stream"])
            return SavedStream(
                stored.get_tensor("latents"), facts["prompt"], facts["seed"], facts["family"]
            )
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file; give a file of --save") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a readable saved stream ({error}); save it again"
        ) from error


def opening_from_saved(path: Path, pipeline: Pipeline) -> Opening:
    """Go on from a saved stream; its own pictures are not shown again.

    Raises CheckpointError if the file is no saved stream, ConfigError if it is of another model or
    picture size.
    """
    saved = load_stream(path)
    facts = pipeline.geometry
    wanted = facts.latent_shape(saved.latents_FCHW.shape[0])
    if saved.family != pipeline.config.family or tuple(saved.latents_FCHW.shape) != wanted:
        shape = "x".join(map(str, saved.latents_FCHW.shape[1:]))
        own = "x".join(map(str, wanted[1:]))
        raise ConfigError(
            f"{path} was saved by {saved.family!r} with latents of {shape}, this preset is "
            f"{pipeline.config.family!r} with {own}; use the preset and size that saved it"
        )
    if not torch.isfinite(saved.latents_FCHW).all():
        raise CheckpointError(f"{path} holds NaN or infinity; the file is damaged, save it again")
    return Opening(saved.latents_FCHW, is_shown=False)
