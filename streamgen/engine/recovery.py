"""How a session goes on after the executor has lost caches and chunks in flight, or elsewhere.

What was decoded is kept as latents (PastLatents); they walk down the ladder once more, which only
writes them into the cache. Then come the chunks that were under way, as they had begun, and then
what the session's own starter makes. No picture is made twice and none is left out.

Legend: F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from streamgen.diffusion.flow import mix_input
from streamgen.diffusion.noise import START_STEP, NoiseSource
from streamgen.engine.batch import Level, Started
from streamgen.engine.collaborators import ChunkStarter, GradedStarter
from streamgen.engine.recipe import Recipe
from streamgen.engine.session import Session
from streamgen.engine.start import NoiseStarter, VideoStarter
from streamgen.ops.transfer import to_device
from streamgen.scheduling.service import Quality

SEED_STEP = 0x9E3779B97F4A7C15  # odd, with bits all over: seeds of restarts are far apart


class ContinuedStarter:
    """Chunks of the past, then chunks that were lost, then those of the starter that it takes over.

    The session counts its chunks anew; the inner starter goes on with its own numbers.
    """

    def __init__(
        self,
        inner: ChunkStarter,
        *,
        past: Sequence[Started],
        lost: Sequence[Started],
        next_inner: int,
    ) -> None:
        self.inner = inner
        self._past = deque(past)
        self._lost = deque(lost)
        self.next_inner = next_inner

    @property
    def waiting_clips(self) -> int:
        return self.inner.waiting_clips

    @property
    def lost(self) -> tuple[Started, ...]:
        """Those that have not begun anew yet."""
        return tuple(self._lost)

    @property
    def past(self) -> tuple[Started, ...]:
        """Those of the past that have not gone into the cache yet."""
        return tuple(self._past)

    def ready(self) -> bool:
        return bool(self._past or self._lost) or self.inner.ready()

    def has_ended(self) -> bool:
        return not (self._past or self._lost) and self.inner.has_ended()

    def set_quality(self, quality: Quality) -> None:
        if isinstance(self.inner, GradedStarter):
            self.inner.set_quality(quality)

    def drop(self, num_clips: int) -> None:
        self.inner.drop(num_clips)

    def start(self, chunk: int) -> Started:
        if self._past:
            return self._past.popleft()
        if self._lost:
            return self._lost.popleft()
        self.next_inner += 1
        return self.inner.start(self.next_inner - 1)


def own_starter(session: Session) -> ChunkStarter:
    """What a session was opened with, whatever it goes on from now."""
    starter = session.starter
    return starter.inner if isinstance(starter, ContinuedStarter) else starter


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a stream is: all that a session elsewhere needs to go on with the next picture."""

    latents_FCHW: Tensor
    """What its window looks back on, oldest first; F may be 0."""
    next_chunk: int
    """The first chunk, by the numbers of its own starter, that nobody has seen."""
    pts_s: float
    """Where in the stream that one begins."""
    seed: int
    """Of the noise on the ladder, which no session elsewhere should draw again."""


def place_of(session: Session) -> Place:
    """Where a session is: behind its last decoded chunk. Copies the latents to the host."""
    starter = session.starter
    undecoded = [one for one in session.chunks if not (one.is_decoded or one.started.is_past)]
    if isinstance(starter, ContinuedStarter):
        next_chunk, lost = starter.next_inner, starter.lost
    else:
        next_chunk, lost = session.next_chunk, ()
    coming = [*(one.started for one in undecoded), *lost]
    own = own_starter(session)
    pts_s = own.next_pts_s if isinstance(own, NoiseStarter) else 0.0
    frames = session.past.frames()
    latents_FCHW = torch.stack(frames).cpu() if frames else torch.zeros(0)
    pts_s = coming[0].pts_s if coming else pts_s
    return Place(latents_FCHW, next_chunk - len(coming), pts_s, session.seed)


def go_on_from_place(session: Session, place: Place, noise: NoiseSource) -> None:
    """Put a session that has just been opened where another one was.

    The past is written into its cache before the next chunk, and nothing of it is shown again. A
    chunk of text-to-video begins with the noise with which it would have begun there.
    """
    assert session.next_chunk == 0, "a session that has begun has a past of its own"
    if not place.latents_FCHW.shape[0]:
        return
    starter = session.starter
    assert isinstance(starter, NoiseStarter | VideoStarter)
    starter.continue_at(place.next_chunk, place.pts_s)
    session.next_chunk, session.seed = place.next_chunk, place.seed
    session.past.add(place.latents_FCHW)
    go_on_from_past(session, noise)
    assert isinstance(session.starter, ContinuedStarter)
    for started in session.starter.past:  # what the codec remembers
        session.decoder.decode(started.given_FCHW, num_frames=0, pts_s=0.0, captured_s=0.0)


def go_on_from_past(session: Session, noise: NoiseSource) -> None:
    """Put a session before its own past; its chunks in flight must be in no executor any more."""
    lost = [
        chunk.started for chunk in session.chunks if not (chunk.is_decoded or chunk.started.is_past)
    ]
    starter = session.starter
    if isinstance(starter, ContinuedStarter):
        inner, next_inner = starter.inner, starter.next_inner
        lost += starter.lost
    else:
        inner, next_inner = starter, session.next_chunk
    frames = session.past.frames()
    past: list[Started] = []
    if frames:
        session.recipe = session.recipe.opening_with(len(frames))
        session.rungs = tuple(
            replace(rung, recipe=rung.recipe.opening_with(len(frames))) for rung in session.rungs
        )
        session.seed = (session.seed + SEED_STEP) % 2**63
        has_condition = isinstance(inner, VideoStarter) and inner.has_condition
        past = _past(torch.stack(frames), session, noise, has_condition=has_condition)
    session.starter = ContinuedStarter(inner, past=past, lost=lost, next_inner=next_inner)
    session.windows = session.recipe.new_windows()
    session.chunks.clear()
    session.next_chunk = 0


def _past(
    latents_FCHW: Tensor, session: Session, noise: NoiseSource, *, has_condition: bool
) -> list[Started]:
    """Chunks whose clean latents are known; an input video's stand for their own condition."""
    recipe: Recipe = session.recipe
    level = Level(recipe.ladder.timesteps[0], recipe.ladder.sigmas[0])
    chunks: list[Started] = []
    end = 0
    while end < latents_FCHW.shape[0]:
        clean_FCHW = latents_FCHW[end : end + recipe.num_frames(len(chunks))]
        shape = tuple(clean_FCHW.shape)
        draw_FCHW = noise.noise(session.seed, len(chunks), START_STEP, shape)
        draw_FCHW = to_device(draw_FCHW, clean_FCHW.device, clean_FCHW.dtype)
        chunks.append(
            Started(
                latents_FCHW=mix_input(clean_FCHW, draw_FCHW, level.sigma),
                condition_FCHW=clean_FCHW if has_condition else None,
                endpoint_FCHW=clean_FCHW,
                level=level,
                pts_s=0.0,
                captured_s=0.0,
                num_frames=0,
                given_FCHW=clean_FCHW,
                is_past=True,
            )
        )
        end += clean_FCHW.shape[0]
    return chunks
