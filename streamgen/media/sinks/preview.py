"""A window on this machine's screen, with the ffplay program: OpenCV's headless build has none.

-o preview:      closing the window (or pressing q in it) ends this output
"""

from __future__ import annotations

import os
import shutil
import sys

import numpy as np

from streamgen.errors import SinkError
from streamgen.media import pixels as picture
from streamgen.media.sinks.child import Child
from streamgen.types import Frame, PictureSize

TIMEOUT_S = 10.0  # for a window that takes no pictures
SMALLEST_SIDE = 384  # pixels of the window; smaller pictures are shown enlarged
ELSEWHERE = "use -o mjpeg://127.0.0.1:8090 and open that address in a browser"


class PreviewSink:
    """Shows each picture as soon as it is written; the caller keeps the time."""

    def __init__(self, size: PictureSize, *, fps: float) -> None:
        """Open the window. Raises SinkError with the remedy if there can be none."""
        program = shutil.which("ffplay")
        if program is None:
            raise SinkError(
                f"preview: needs the ffplay program; install ffmpeg (apt install ffmpeg), or "
                f"{ELSEWHERE}"
            )
        has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if sys.platform == "linux" and not has_screen:
            raise SinkError(f"preview: there is no screen here (DISPLAY is not set); {ELSEWHERE}")
        self._size = size
        factor = max(1, -(-SMALLEST_SIDE // min(size.height, size.width)))
        quiet = ("-hide_banner", "-loglevel", "error")
        window = ("-x", str(size.width * factor), "-y", str(size.height * factor))
        at_once = ("-fflags", "nobuffer", "-flags", "low_delay", "-framedrop", "-sync", "ext")
        title, rate = ("-window_title", "StreamGen"), f"{2 * fps:g}"  # never slower than we are
        raw = ("-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", str(size))
        self._child = Child(
            "preview",
            [program, *quiet, *title, *window, *at_once, *raw, "-framerate", rate, "-i", "-"],
            says_ready=False,
            open_timeout_s=TIMEOUT_S,
            timeout_s=TIMEOUT_S,
        )

    def write(self, frame: Frame) -> None:
        pixels = np.ascontiguousarray(picture.letterbox(frame.pixels, self._size))
        self._child.send(pixels.data)

    def close(self) -> None:
        self._child.kill()

    def abort(self) -> None:
        self._child.kill()
