"""How a chunk begins: from noise (text-to-video), or from noise over a clip (video-to-video).

Legend: T pixel frames, F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.diffusion.flow import mix_input
from streamgen.diffusion.noise import CONDITION_STEP, START_STEP, NoiseSource
from streamgen.diffusion.noise_control import NoiseController
from streamgen.diffusion.schedule import NoiseSchedule
from streamgen.engine.batch import Level, Started
from streamgen.engine.codec import StreamEncoder
from streamgen.engine.collaborators import HeldClip
from streamgen.engine.feed import ClipFeed, TakenClip
from streamgen.engine.recipe import Recipe
from streamgen.models.codec_facts import CodecFacts
from streamgen.ops.pixels import to_signed
from streamgen.ops.transfer import to_device
from streamgen.scheduling.service import Quality


@dataclass(frozen=True, slots=True)
class StreamGeometry:
    """Latent picture of a stream, its rate, and where its latents live."""

    codec: CodecFacts
    latent_height: int
    latent_width: int
    fps: float
    device: torch.device
    dtype: torch.dtype

    def latent_shape(self, num_latent_frames: int) -> tuple[int, int, int, int]:
        channels = self.codec.latent_channels
        return num_latent_frames, channels, self.latent_height, self.latent_width

    def num_pixel_frames(self, recipe: Recipe, chunk: int) -> int:
        return self.codec.num_pixel_frames(recipe.num_frames(chunk), chunk == 0)

    def num_chunks(self, recipe: Recipe, num_frames: int, *, num_hidden: int = 0) -> int:
        """Chunks that show at least so many pixel frames, behind `num_hidden` that show none."""
        first, later = (self.num_pixel_frames(recipe, chunk) for chunk in (0, 1))
        if num_hidden:
            return num_hidden + -(-num_frames // later)
        return 1 + max(0, -(-(num_frames - first) // later))


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """What a text-to-video stream goes on from: a picture, a clip, the end of another stream."""

    latents_FCHW: Tensor
    """Clean latents of its first latent frames, at least one."""
    is_shown: bool
    """Whether their pictures come out, too; otherwise the stream begins behind them."""

    @property
    def num_frames(self) -> int:
        """Latent frames."""
        return self.latents_FCHW.shape[0]

    def num_chunks(self, recipe: Recipe) -> int:
        """Chunks that it takes under a recipe made by `Recipe.opening_with`."""
        return 1 + (self.num_frames - recipe.first_chunk_frames) // recipe.chunk_frames

    def num_hidden_chunks(self, recipe: Recipe) -> int:
        return 0 if self.is_shown else self.num_chunks(recipe)


class NoiseStarter:
    """Text-to-video: every chunk begins as pure noise; there is always a next one.

    With an opening, the chunks of its latents come first: they take the same passes, which only
    write them into the cache, so what follows attends to them as to the stream's own past.
    """

    waiting_clips = 0

    def __init__(
        self,
        recipe: Recipe,
        geometry: StreamGeometry,
        noise: NoiseSource,
        *,
        seed: int,
        max_chunks: int | None,
        opening: Opening | None = None,
    ) -> None:
        """`max_chunks` counts those of the opening, too; see `StreamGeometry.num_chunks`."""
        self._recipe = recipe
        self._geometry = geometry
        self._noise = noise
        self._seed = seed
        self._opening = opening
        self._num_given = 0 if opening is None else opening.num_chunks(recipe)
        self._num_hidden = 0 if opening is None else opening.num_hidden_chunks(recipe)
        self._max_chunks = max_chunks
        self._num_started = 0
        self._num_shown = 0
        self._repeat = 1

    def continue_at(self, chunk: int, pts_s: float) -> None:
        """Go on where another stream was: the next chunk is this one, at this place."""
        self._num_started = chunk
        self._num_shown = round(pts_s * self._geometry.fps)

    @property
    def next_pts_s(self) -> float:
        """Where in the stream the next chunk begins."""
        return self._num_shown / self._geometry.fps

    def set_quality(self, quality: Quality) -> None:
        """From the next chunk on, show each picture as often as the quality's rate says."""
        self._repeat = quality.rate_divisor

    def ready(self) -> bool:
        return not self.has_ended()

    def has_ended(self) -> bool:
        return self._max_chunks is not None and self._num_started >= self._max_chunks

    def drop(self, num_clips: int) -> None:
        assert num_clips == 0, "text-to-video has no clips to drop"

    def start(self, chunk: int) -> Started:
        geometry, recipe = self._geometry, self._recipe
        shape = geometry.latent_shape(recipe.num_frames(chunk))
        noise_FCHW = self._noise.noise(self._seed, chunk, START_STEP, shape)
        self._num_started += 1
        num_frames = geometry.num_pixel_frames(recipe, chunk)
        if chunk < self._num_hidden:
            num_frames = 0
        pts_s = self.next_pts_s
        self._num_shown += num_frames * self._repeat
        return Started(
            latents_FCHW=to_device(noise_FCHW, geometry.device, geometry.dtype),
            condition_FCHW=None,
            endpoint_FCHW=None,
            level=None,
            pts_s=pts_s,
            captured_s=None,
            num_frames=num_frames,
            repeat=self._repeat,
            given_FCHW=self._given(chunk),
        )

    def _given(self, chunk: int) -> Tensor | None:
        if self._opening is None or chunk >= self._num_given:
            return None
        first = self._recipe.first_frame(chunk)
        frames = self._opening.latents_FCHW[first : first + self._recipe.num_frames(chunk)]
        return to_device(frames, self._geometry.device, self._geometry.dtype)


class VideoStarter:
    """Video-to-video: a clip of the input is encoded, and noise put over it.

    A model with condition channels also reads the encoded clip itself, with `condition_noise` of
    noise on it: the less, the closer it keeps to the input.
    """

    def __init__(
        self,
        noise: NoiseSource,
        *,
        seed: int,
        feed: ClipFeed,
        encoder: StreamEncoder,
        controller: NoiseController,
        schedule: NoiseSchedule,
        condition_noise: float | None,
    ) -> None:
        """`condition_noise` in [0, 1]; None for a model without condition channels."""
        self._noise = noise
        self._seed = seed
        self._feed = feed
        self._encoder = encoder
        self._controller = controller
        self._schedule = schedule
        self._condition_noise = condition_noise
        self._repeat = 1
        self.watch: Callable[[TakenClip], None] | None = None
        """Is given every clip that becomes a chunk, before it does."""
        self._is_encoder_new = True

    @property
    def has_condition(self) -> bool:
        """Whether the model reads the encoded clip itself beside the noisy one."""
        return self._condition_noise is not None

    def continue_at(self, chunk: int, pts_s: float) -> None:
        """Go on where another stream was, on an input that goes on, too: the next chunk is this."""
        self._feed.continue_at(chunk)

    def set_quality(self, quality: Quality) -> None:
        """From the next chunk on, draw every so-many-th picture, and hold still clips or not."""
        self._repeat = quality.rate_divisor
        self._feed.set_quality(quality)

    def start_from(self, controller: NoiseController, condition_noise: float | None) -> None:
        """From the next chunk on, put another amount of noise over the input."""
        self._controller = controller
        self._condition_noise = condition_noise

    @property
    def waiting_clips(self) -> int:
        return self._feed.waiting_clips

    def waiting_captured_s(self) -> tuple[float, ...]:
        return self._feed.waiting_captured_s()

    def take_still(self, max_clips: int) -> tuple[HeldClip, ...]:
        return self._feed.take_still(max_clips)

    def take_lost(self) -> int:
        return self._feed.take_lost()

    def ready(self) -> bool:
        return self._feed.ready()

    def has_ended(self) -> bool:
        return self._feed.has_ended()

    def drop(self, num_clips: int) -> None:
        self._feed.drop(num_clips)

    def start(self, chunk: int) -> Started:
        taken = self._feed.take()
        if self.watch is not None:
            self.watch(taken)
        clip = taken.clip
        on_host_TCHW = to_signed(torch.from_numpy(clip.pixels), torch.float32)
        level = self._controller.next(on_host_TCHW)
        if self._is_encoder_new and chunk > 0:
            self._encoder.begin_within(clip)
        self._is_encoder_new = False
        clean_FCHW = self._encoder.encode(self._encoder.pixels(clip))
        shape, device = tuple(clean_FCHW.shape), clean_FCHW.device
        noise_FCHW = self._noise.noise(self._seed, chunk, START_STEP, shape)
        noise_FCHW = to_device(noise_FCHW, device)
        condition_FCHW = None if self._condition_noise is None else clean_FCHW
        if self._condition_noise:
            draw_FCHW = self._noise.noise(self._seed, chunk, CONDITION_STEP, shape)
            draw_FCHW = to_device(draw_FCHW, device)
            condition_FCHW = mix_input(clean_FCHW, draw_FCHW, self._condition_noise)
        return Started(
            latents_FCHW=mix_input(clean_FCHW, noise_FCHW, level.scale),
            condition_FCHW=condition_FCHW,
            endpoint_FCHW=clean_FCHW,
            level=Level(level.timestep, self._schedule.sigma_at(level.timestep)),
            pts_s=taken.pts_s,
            captured_s=taken.captured_s,
            num_frames=taken.num_frames,
            repeat=self._repeat,
            begins_scene=level.begins_scene,
            encoding=self._encoder.encoding,
        )
