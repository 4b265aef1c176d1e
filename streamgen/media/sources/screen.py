"""A part of this machine's screen, through mss; on Linux under X11, on Windows and on macOS.

Wayland shows a program no other program's windows, so that there is no such source there.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import numpy as np

from streamgen.clock import Clock
from streamgen.errors import ConfigError, SourceError, install_command
from streamgen.media.source import SourceFacts
from streamgen.types import PictureSize, Pixels

if TYPE_CHECKING:
    from mss.base import MSSBase

FPS = 30.0  # pictures a second unless somebody wishes otherwise


class ScreenRegion:
    """Grabs a rectangle of the screen at a steady rate; a Device."""

    def __init__(
        self,
        monitor: str,
        *,
        size: PictureSize | None,
        corner: tuple[int, int] | None,
        fps: float,
        clock: Clock,
    ) -> None:
        """`monitor` is a number from 1 on, or empty for all of the screen.

        `corner` is left and top, from those of the monitor; `size` defaults to what is right of
        and below it. Raises SourceError if there is no screen, ConfigError if nothing of it is
        meant.
        """
        self._clock = clock
        self._period_s = 1.0 / fps
        self._next_s = clock.now()
        self._grabber = _opened_screen()
        try:
            self._area = _area(self._grabber.monitors, monitor, size, corner)
        except BaseException:
            self._grabber.close()
            raise
        shown = PictureSize(self._area["height"], self._area["width"])
        self._facts = SourceFacts(shown, fps=fps, is_live=True)

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    def grab(self) -> Pixels | None:
        from mss.exception import ScreenShotError

        now_s = self._clock.now()
        self._clock.sleep(self._next_s - now_s)
        self._next_s = max(self._next_s, now_s) + self._period_s
        try:
            shot = self._grabber.grab(self._area)
        except ScreenShotError:
            return None
        bgra = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        return np.ascontiguousarray(bgra[..., 2::-1])

    def close(self) -> None:
        self._grabber.close()


def _opened_screen() -> MSSBase:
    try:
        import mss
        from mss.exception import ScreenShotError
    except ImportError as error:
        raise SourceError(
            f"screen: needs the package mss; run: {install_command('screen')}"
        ) from error
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        raise SourceError(
            "there is no X11 screen here (DISPLAY is not set); start it from a desktop with Xorg"
        )
    try:
        return mss.mss()
    except (ScreenShotError, OSError) as error:
        raise SourceError(f"cannot read the screen: {error}; is this an Xorg desktop?") from error


def _area(
    monitors: list[dict[str, int]],
    monitor: str,
    size: PictureSize | None,
    corner: tuple[int, int] | None,
) -> dict[str, int]:
    """The rectangle that is meant, in pixels of the whole screen; `monitors[0]` is all of it."""
    number = int(monitor) if monitor.isascii() and monitor.isdecimal() else -1
    if monitor and not 1 <= number < len(monitors):
        known = ", ".join(f"screen:{index}" for index in range(1, len(monitors)))
        raise ConfigError(f"there is no screen:{monitor}; there are {known}, and screen: for all")
    whole = monitors[number if monitor else 0]
    left, top = corner or (0, 0)
    width = size.width if size else whole["width"] - left
    height = size.height if size else whole["height"] - top
    if left + width > whole["width"] or top + height > whole["height"] or min(width, height) < 1:
        raise ConfigError(
            f"{width}x{height} at {left}x{top} is not all on the screen of "
            f"{whole['width']}x{whole['height']}; choose less"
        )
    return {
        "left": whole["left"] + left,
        "top": whole["top"] + top,
        "width": width,
        "height": height,
    }
