"""What video-to-video draws, clip by clip: taken from the queue of an input, or from a recording.

Knows no tensors: how a clip becomes a chunk is the starter's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streamgen.engine.collaborators import HeldClip
from streamgen.media.frame_queue import FrameQueue, LiveFrameQueue, clip_of
from streamgen.media.similarity import SimilarityFilter
from streamgen.scheduling.service import Quality
from streamgen.types import Clip


@dataclass(frozen=True, slots=True)
class TakenClip:
    """A clip of the input, at the rate at which it is drawn."""

    clip: Clip
    num_frames: int
    """Pictures to draw; fewer than the clip has where the input ended in its midst."""
    pts_s: float
    captured_s: float


class ClipFeed(Protocol):
    """Where the clips of a video-to-video session come from."""

    @property
    def waiting_clips(self) -> int:
        """Clips that could become chunks."""
        ...

    def waiting_captured_s(self) -> tuple[float, ...]:
        """When the clips that wait were captured, oldest first."""
        ...

    def take_still(self, max_clips: int) -> tuple[HeldClip, ...]:
        """Take clips from the head that look as the one before; nobody draws them."""
        ...

    def take_lost(self) -> int:
        """Pictures since the last call that nobody will draw: dropped, or there was no room."""
        ...

    def ready(self) -> bool:
        """Whether `take` would give a clip now."""
        ...

    def has_ended(self) -> bool: ...

    def continue_at(self, chunk: int) -> None:
        """Begin with this chunk of the stream; before the first `take`."""
        ...

    def take(self) -> TakenClip:
        """The clip of the next chunk. Only after `ready` said True."""
        ...

    def drop(self, num_clips: int) -> None:
        """Forget the oldest clips."""
        ...

    def set_quality(self, quality: Quality) -> None:
        """From the next chunk on, draw every so-many-th picture, and hold still clips or not."""
        ...


class QueueFeed:
    """Clips out of the queue that an input fills.

    A live input's clips keep their times, so that those that were missed leave a gap; a file's
    follow one another at the rate of the stream.
    """

    def __init__(
        self,
        queue: FrameQueue,
        *,
        clip_frames: Callable[[int], int],
        fps: float,
        seed: int,
    ) -> None:
        """`clip_frames` says how many pictures of the stream a chunk has, by its number."""
        self._queue = queue
        self._clip_frames = clip_frames
        self._fps = fps
        self._seed = seed
        self._capacity = queue.capacity
        self._first_pts_s: float | None = None
        self._next_chunk = 0
        self._num_taken = 0  # pictures of the input, which is where the next one is in the stream
        self._num_dropped = 0
        self._num_lost = queue.num_dropped
        self._repeat = 1
        self._filter: SimilarityFilter | None = None
        self._looked_at: TakenClip | None = None  # by the filter; it is the next to start

    def set_quality(self, quality: Quality) -> None:
        self._repeat = quality.rate_divisor
        if isinstance(self._queue, LiveFrameQueue):  # a chunk that takes more needs room for more
            more = (self._repeat - 1) * self._clip_frames(self._next_chunk)
            self._queue.resize(self._capacity + more)
        if not quality.skips_still:
            self._filter = None
        elif self._filter is None:
            self._filter = SimilarityFilter(seed=self._seed)

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
            taken = self._pop()
            if not self._filter.is_still(taken.clip):
                self._looked_at = taken
                break
            num_shown = taken.num_frames * self._repeat
            held.append(HeldClip(num_shown, taken.pts_s, taken.captured_s))
        return tuple(held)

    def take_lost(self) -> int:
        before, self._num_lost = self._num_lost, self._num_dropped + self._queue.num_dropped
        return self._num_lost - before

    def ready(self) -> bool:
        """Whether a whole clip waits, or the rest of an input that has ended."""
        return self._looked_at is not None or self._clip_waits()

    def has_ended(self) -> bool:
        return self._looked_at is None and self._queue.has_ended()

    def continue_at(self, chunk: int) -> None:
        self._next_chunk = chunk

    def take(self) -> TakenClip:
        taken = self._next()
        self._next_chunk += 1
        return taken

    def drop(self, num_clips: int) -> None:
        for _ in range(num_clips):
            self._num_dropped += self._next().num_frames * self._repeat

    @property
    def _frames_wanted(self) -> int:
        return self._clip_frames(self._next_chunk) * self._repeat

    def _clip_waits(self) -> bool:
        wanted = self._frames_wanted
        is_rest = self._queue.has_ended(wanted) and self._queue.num_waiting > 0
        return is_rest or self._queue.wait(wanted, timeout_s=0.0)

    def _next(self) -> TakenClip:
        """The clip that the filter has let through, or the next of the queue."""
        looked_at, self._looked_at = self._looked_at, None
        return self._pop() if looked_at is None else looked_at

    def _pop(self) -> TakenClip:
        """The next clip, its last picture repeated where the input ended, and its own length.

        At a lower rate, the newest of every so many pictures are taken.
        """
        wanted = self._frames_wanted
        if not self._queue.has_ended(wanted):
            clip = self._queue.get_batch(wanted)
            assert clip is not None, "a clip was taken before there was one"
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

    def _pts_s(self, clip: Clip) -> float:
        if not isinstance(self._queue, LiveFrameQueue):
            return self._num_taken / self._fps
        if self._first_pts_s is None:
            self._first_pts_s = clip.pts_s
        return clip.pts_s - self._first_pts_s


class RecordedFeed:
    """Clips that somebody puts in, one after the other: how a recorded session is played again."""

    def __init__(self) -> None:
        self._clips: deque[TakenClip] = deque()
        self._held: deque[HeldClip] = deque()

    waiting_clips = 0

    def put(self, clip: TakenClip) -> None:
        """The clip of a chunk that is to begin."""
        self._clips.append(clip)

    def hold(self, held: HeldClip) -> None:
        """A clip that was held when the session was recorded."""
        self._held.append(held)

    def waiting_captured_s(self) -> tuple[float, ...]:
        return ()

    def take_still(self, max_clips: int) -> tuple[HeldClip, ...]:
        return tuple(self._held.popleft() for _ in range(min(max_clips, len(self._held))))

    def take_lost(self) -> int:
        return 0

    def ready(self) -> bool:
        return bool(self._clips)

    def has_ended(self) -> bool:
        return False

    def continue_at(self, chunk: int) -> None:
        """Nothing changes: clips are put as long as they were."""

    def take(self) -> TakenClip:
        return self._clips.popleft()

    def drop(self, num_clips: int) -> None:
        raise AssertionError("what was dropped was not recorded")

    def set_quality(self, quality: Quality) -> None:
        """Clips were recorded at the rate at which they were drawn."""
