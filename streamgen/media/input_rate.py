"""How many frames a second a live input should send: what is sent and then dropped is wasted.

A live queue that overflows drops its oldest frames in runs, and what is left jerks. So the sender
is told a rate that the reader keeps up with, and leaves out frames evenly. Pure arithmetic: knows
no clock, no queue and no sender.
"""

from __future__ import annotations

HEADROOM = 0.95  # share of what was taken that is asked for after an overflow
GROWTH = 1.05  # of the rate, each time that nothing was dropped
GROWTH_FPS = 0.2  # and frames a second on top, so that slow streams find out, too


class InputRate:
    """Additive increase, multiplicative decrease, as congestion control has it (RFC 5681, sec. 3).

    `fps` begins at the highest rate, for a model that keeps up is never slowed down.
    """

    def __init__(self, *, highest_fps: float, lowest_fps: float = 1.0) -> None:
        if not 0 < lowest_fps <= highest_fps:
            raise ValueError(f"no rate lies between {lowest_fps} and {highest_fps} frames/s")
        self._highest_fps = highest_fps
        self._lowest_fps = lowest_fps
        self._fps = highest_fps

    @property
    def fps(self) -> float:
        """Frames a second that the sender should send."""
        return self._fps

    def observe(self, *, num_taken: int, num_dropped: int, seconds: float) -> None:
        """Take in what happened to the frames of the last `seconds`."""
        if seconds <= 0:
            raise ValueError(f"nothing happens in {seconds} s")
        if num_dropped:
            wanted_fps = min(self._fps, HEADROOM * num_taken / seconds)
        else:
            wanted_fps = GROWTH * self._fps + GROWTH_FPS
        self._fps = min(self._highest_fps, max(self._lowest_fps, wanted_fps))
