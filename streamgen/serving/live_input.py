"""The input queue of a live stream: it knows, when a clip comes out, what had gone into it."""

from __future__ import annotations

from collections import deque

from streamgen.media.frame_queue import LiveFrameQueue
from streamgen.types import Clip, Frame


class LiveInput(LiveFrameQueue):
    """A live queue that remembers which frames became which clip, until the clip comes out."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._taken: deque[list[Frame]] = deque()

    def get_batch(self, num_frames: int) -> Clip | None:
        with self._changed:
            frames = list(self._frames)[:num_frames]
            clip = super().get_batch(num_frames)
        if clip is not None:
            times = [Frame(frame.pixels[:0], frame.pts_s, frame.captured_s) for frame in frames]
            self._taken.append(times)
        return clip

    def times_of(self, clip: Clip) -> list[Frame]:
        """The frames, without pictures, that a finished clip was made from; each clip once.

        Clips come out in the order in which they went in; what was dropped on the way is skipped.
        """
        while self._taken:
            frames = self._taken.popleft()
            if frames[0].captured_s == clip.captured_s:
                return frames
        return []
