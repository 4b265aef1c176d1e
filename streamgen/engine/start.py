"""How a chunk begins: from noise (text-to-video), or from noise over a clip (video-to-video).

Legend: T pixel frames, F latent frames, C channels, H W latent height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.diffusion.flow import mix_input
from streamgen.diffusion.noise import CONDITION_STEP, START_STEP, NoiseSource
from streamgen.diffusion.noise_control import NoiseController
from streamgen.diffusion.schedule import NoiseSchedule
from streamgen.engine.batch import Level, Started
from streamgen.engine.codec import StreamEncoder, pixels_to_tensor
from streamgen.engine.collaborators import HeldClip
from streamgen.engine.recipe import Recipe
from streamgen.media.frame_queue import FrameQueue, clip_of
from streamgen.media.similarity import SimilarityFilter
from streamgen.models.codec_facts import CodecFacts
from streamgen.scheduling.service import Quality
from streamgen.types import Clip


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
        pts_s = self._num_shown / geometry.fps
        self._num_shown += num_frames * self._repeat
        return Started(
            latents_FCHW=noise_FCHW.to(geometry.device, geometry.dtype, non_blocking=True),
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
        return frames.to(self._geometry.device, self._geometry.dtype, non_blocking=True)


@dataclass(frozen=True, slots=True, eq=False)
class TakenClip:
    """A clip out of the queue, at the rate at which it is drawn."""

    clip: Clip
    num_frames: int
    """Pictures to draw; fewer than the clip has where the input ended in its midst."""
    pts_s: float
    captured_s: float


class VideoStarter:
    """Video-to-video: a clip from the queue is encoded, and noise put over it.

    A model with condition channels also reads the encoded clip itself, with `condition_noise` of
    noise on it: the less, the closer it keeps to the input.
    """

    def __init__(
        self,
        recipe: Recipe,
        geometry: StreamGeometry,
        noise: NoiseSource,
        *,
        seed: int,
        queue: FrameQueue,
        encoder: StreamEncoder,
        controller: NoiseController,
        schedule: NoiseSchedule,
        condition_noise: float | None,
        is_live: bool = False,
    ) -> None:
        """`condition_noise` in [0, 1]; None for a model without condition channels.

        A live input's clips keep their times, so that those that were missed leave a gap; a file's
        follow one another at the rate of the stream.
        """
        self._recipe = recipe
        self._geometry = geometry
        self._noise = noise
        self._seed = seed
        self._queue = queue
        self._encoder = encoder
        self._controller = controller
        self._schedule = schedule
        self._condition_noise = condition_noise
        self._is_live = is_live
        self._first_pts_s: float | None = None
        self._next_chunk = 0
        self._num_taken = 0  # pictures of the input, which is where the next one is in the stream
        self._repeat = 1
        self._filter: SimilarityFilter | None = None
        self._looked_at: TakenClip | None = None  # by the filter; it is the next to start

    def set_quality(self, quality: Quality) -> None:
        """From the next chunk on, draw every so-many-th picture, and hold still clips or not."""
        self._repeat = quality.rate_divisor
        if not quality.skips_still:
            self._filter = None
        elif self._filter is None:
            self._filter = SimilarityFilter(seed=self._seed)

    def start_from(self, controller: NoiseController, condition_noise: float | None) -> None:
        """From the next chunk on, put another amount of noise over the input."""
        self._controller = controller
        self._condition_noise = condition_noise

    @property
    def waiting_clips(self) -> int:
        return (self._looked_at is not None) + self._queue.num_waiting // self._frames_wanted

    def waiting_captured_s(self) -> tuple[float, ...]:
        queued_s = self._queue.captured_s(self._frames_wanted)
        queued_s = queued_s[: self._queue.num_waiting // self._frames_wanted]
        return queued_s if self._looked_at is None else (self._looked_at.captured_s, *queued_s)

    def take_still(self, max_clips: int) -> tuple[HeldClip, ...]:
        if self._filter is None or self._looked_at is not None:
            return ()
        held: list[HeldClip] = []
        while len(held) < max_clips and self._clip_waits():
            taken = self._take()
            if not self._filter.is_still(taken.clip):
                self._looked_at = taken
                break
            num_shown = taken.num_frames * self._repeat
            held.append(HeldClip(num_shown, taken.pts_s, taken.captured_s))
        return tuple(held)

    @property
    def _frames_wanted(self) -> int:
        drawn = self._geometry.num_pixel_frames(self._recipe, self._next_chunk)
        return drawn * self._repeat

    def ready(self) -> bool:
        """Whether a whole clip waits, or the rest of an input that has ended."""
        return self._looked_at is not None or self._clip_waits()

    def _clip_waits(self) -> bool:
        wanted = self._frames_wanted
        is_rest = self._queue.has_ended(wanted) and self._queue.num_waiting > 0
        return is_rest or self._queue.wait(wanted, timeout_s=0.0)

    def has_ended(self) -> bool:
        return self._looked_at is None and self._queue.has_ended()

    def drop(self, num_clips: int) -> None:
        for _ in range(num_clips):
            self._next()

    def _next(self) -> TakenClip:
        """The clip that the filter has let through, or the next of the queue."""
        looked_at, self._looked_at = self._looked_at, None
        return self._take() if looked_at is None else looked_at

    def _take(self) -> TakenClip:
        """The next clip, its last picture repeated where the input ended, and its own length.

        At a lower rate, the newest of every so many pictures are taken.
        """
        wanted = self._frames_wanted
        if not self._queue.has_ended(wanted):
            clip = self._queue.get_batch(wanted)
            assert clip is not None, "start was called before ready"
            num_frames = wanted
        else:
            rest = [self._queue.get() for _ in range(self._queue.num_waiting)]
            frames = [frame for frame in rest if frame is not None]
            clip = clip_of([*frames, *[frames[-1]] * (wanted - len(frames))])
            num_frames = len(frames)
        pts_s = self._pts_s(clip)
        self._num_taken += num_frames
        thinned = Clip(clip.pixels[self._repeat - 1 :: self._repeat], clip.pts_s, clip.captured_s)
        return TakenClip(thinned, -(-num_frames // self._repeat), pts_s, clip.captured_s)

    def start(self, chunk: int) -> Started:
        taken = self._next()
        clip = taken.clip
        on_host_TCHW = pixels_to_tensor(clip, torch.device("cpu"), torch.float32)
        level = self._controller.next(on_host_TCHW)
        clean_FCHW = self._encoder.encode(self._encoder.pixels(clip))
        shape, device = tuple(clean_FCHW.shape), clean_FCHW.device
        noise_FCHW = self._noise.noise(self._seed, chunk, START_STEP, shape)
        noise_FCHW = noise_FCHW.to(device, non_blocking=True)
        condition_FCHW = None if self._condition_noise is None else clean_FCHW
        if self._condition_noise:
            draw_FCHW = self._noise.noise(self._seed, chunk, CONDITION_STEP, shape)
            draw_FCHW = draw_FCHW.to(device, non_blocking=True)
            condition_FCHW = mix_input(clean_FCHW, draw_FCHW, self._condition_noise)
        self._next_chunk = chunk + 1
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
        )

    def _pts_s(self, clip: Clip) -> float:
        if not self._is_live:
            return self._num_taken / self._geometry.fps
        if self._first_pts_s is None:
            self._first_pts_s = clip.pts_s
        return clip.pts_s - self._first_pts_s
