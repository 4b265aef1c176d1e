"""Snapshots: a live stream as bytes, from which another engine goes on with the next picture.

A safetensors file: the latents that the stream's window looks back on, and in its metadata what
the stream was asked to be and where it is. What another program sends is checked before any of it
is used.

Legend: F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from streamgen.engine.recovery import Place, go_on_from_place, place_of
from streamgen.errors import ConfigError
from streamgen.serving.build import Pipeline
from streamgen.serving.host import OpenSession
from streamgen.serving.live_facts import Wishes

FORMAT = "streamgen-session-1"
MAX_SNAPSHOT_BYTES = 256 * 2**20  # a window of 14B at 720p has some 20
LENGTH = struct.Struct("<Q")  # of the header, at the beginning of a safetensors file
NO_SNAPSHOT = "not a snapshot of a session; take one with POST /streamgen/sessions/{id}/snapshot"


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What a stream was asked to be, and where it is."""

    wishes: Wishes
    family: str
    place: Place


def take_snapshot(pipeline: Pipeline, opened: OpenSession, wishes: Wishes) -> Snapshot:
    """Where a session is, behind its last decoded chunk; call it between two ticks."""
    return Snapshot(wishes, pipeline.config.family, place_of(opened.session))


def restore(pipeline: Pipeline, opened: OpenSession, snapshot: Snapshot) -> None:
    """Put a session that has just been opened where the snapshot was taken.

    Raises ConfigError if that was another model or another picture size.
    """
    place, family = snapshot.place, pipeline.config.family
    latents_FCHW = place.latents_FCHW
    if latents_FCHW.numel():
        own = pipeline.geometry.latent_shape(latents_FCHW.shape[0])
        given = tuple(latents_FCHW.shape)
        if snapshot.family != family or given != own:
            raise ConfigError(
                f"the snapshot is of {snapshot.family!r} with latents of {_size(given)}"
                f", this preset is {family!r} with {_size(own)}; go on with the preset and size "
                f"that it was taken from"
            )
    window = pipeline.recipe.sinks + pipeline.recipe.ring
    if latents_FCHW.shape[0] > window:
        raise ConfigError(
            f"the snapshot looks back on {latents_FCHW.shape[0]} latent frames, this preset on "
            f"{window}; go on with the preset that it was taken from"
        )
    moved_FCHW = latents_FCHW.to(pipeline.backend.device, pipeline.backend.dtype)
    go_on_from_place(opened.session, replace(place, latents_FCHW=moved_FCHW), pipeline.noise)


def pack_snapshot(snapshot: Snapshot) -> bytes:
    place = snapshot.place
    facts = {
        "wishes": asdict(snapshot.wishes),
        "family": snapshot.family,
        "next_chunk": place.next_chunk,
        "pts_s": place.pts_s,
        "seed": place.seed,
    }
    tensors = {"latents": place.latents_FCHW.contiguous()}
    return save(tensors, {"format": FORMAT, "session": json.dumps(facts)})


def unpack_snapshot(data: bytes) -> Snapshot:
    """Raises ConfigError, in one line, for what `pack_snapshot` cannot have written."""
    try:
        (length,) = LENGTH.unpack_from(data)
        metadata = json.loads(data[LENGTH.size : LENGTH.size + length])["__metadata__"]
        if metadata["format"] != FORMAT:
            raise ConfigError(NO_SNAPSHOT)
        facts: dict[str, Any] = json.loads(metadata["session"])
        wishes = _checked(Wishes(**facts["wishes"]))
        latents_FCHW = load(data)["latents"]
        place = Place(latents_FCHW, facts["next_chunk"], facts["pts_s"], facts["seed"])
        snapshot = Snapshot(wishes, facts["family"], place)
        _check_place(place)
    except (SafetensorError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ConfigError(NO_SNAPSHOT) from error
    return snapshot


def _checked(wishes: Wishes) -> Wishes:
    """ValueError if a field is of another type than it should be."""
    kinds = {"preset": str, "prompt": str, "seed": int, "strength": float, "steps": int}
    for name, kind in kinds.items():
        value = getattr(wishes, name)
        if value is not None and type(value) is not kind:
            raise ValueError(f"{name} is no {kind.__name__}")
    if wishes.preset is None or wishes.prompt is None:
        raise ValueError("no preset or no prompt")
    return wishes


def _check_place(place: Place) -> None:
    latents_FCHW = place.latents_FCHW
    is_empty = not latents_FCHW.numel()
    if not (is_empty or (latents_FCHW.ndim == 4 and latents_FCHW.is_floating_point())):
        raise ValueError("latents of no stream")
    if not torch.isfinite(latents_FCHW).all():
        raise ValueError("latents are not finite")
    if type(place.next_chunk) is not int or not 0 <= place.next_chunk < 2**53:
        raise ValueError("no number of a chunk")
    if not is_empty and place.next_chunk == 0:
        raise ValueError("a past before the first chunk")
    if type(place.seed) is not int or not 0 <= place.seed < 2**63:
        raise ValueError("no seed")
    if type(place.pts_s) is not float or not 0 <= place.pts_s < math.inf:
        raise ValueError("no place in a stream")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))
