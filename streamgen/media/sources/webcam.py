"""Cameras of this machine, through OpenCV: which there are, and one of them as a device.

A camera is asked for a size and a rate and gives the nearest that it has; what it gives holds. One
that is unplugged is SteadySource's affair.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streamgen.errors import ConfigError, SourceError
from streamgen.media.source import SourceFacts
from streamgen.types import PictureSize, Pixels

logger = logging.getLogger(__name__)

LINUX_CAMERAS = Path("/sys/class/video4linux")
MAX_PROBED = 6  # cameras that are looked for where the system keeps no list
SIZES = (PictureSize(480, 640), PictureSize(720, 1280), PictureSize(1080, 1920))
"""What nearly every camera has one of, smallest first."""
FPS = 30.0  # what is asked of a camera unless somebody wishes otherwise
HIGHEST_FPS = 480.0  # a rate above that is no rate: drivers that know none say all sorts of things
COMPRESSED = cv2.VideoWriter.fourcc(*"MJPG")  # above 640x480, USB 2 carries no raw 30 frames/s


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera that is plugged in: its number for OpenCV, and its name for people."""

    index: int
    name: str


def list_cameras(folder: Path = LINUX_CAMERAS) -> list[Camera]:
    """The cameras of this machine. Where the system keeps no list of them, each is tried."""
    if sys.platform.startswith("linux"):
        return _listed_cameras(folder)
    return [Camera(index, f"camera {index}") for index in range(MAX_PROBED) if _opens(index)]


def size_to_ask(wanted: PictureSize) -> PictureSize:
    """The smallest common camera size that `wanted` can be cut out of without growing."""
    for size in SIZES:
        if size.height >= wanted.height and size.width >= wanted.width:
            return size
    return SIZES[-1]


def find_camera(wish: str) -> int | str:
    """What OpenCV opens for `wish`: a number, a path, a part of a name, or nothing for the first.

    Raises ConfigError if no camera has such a name.
    """
    if wish.isascii() and wish.isdecimal():
        return int(wish)
    if "/" in wish:
        return wish
    cameras = list_cameras()
    if not wish:
        return cameras[0].index if cameras else 0
    for camera in cameras:
        if wish.lower() in camera.name.lower():
            return camera.index
    raise ConfigError(f"no camera is called {wish!r}; {_choice(cameras)}")


class OpenCvCamera:
    """One open camera; a Device."""

    def __init__(self, target: int | str, *, size: PictureSize, fps: float) -> None:
        """`size` and `fps` are wishes. Raises SourceError if there is no such camera."""
        self._name = f"webcam:{target}"
        _check_linux_device(target)
        _silence_opencv()
        self._capture = cv2.VideoCapture(target, _backend(target))
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"cannot open {self._name}; {_choice(list_cameras())}")
        if size.width > SIZES[0].width:
            self._capture.set(cv2.CAP_PROP_FOURCC, COMPRESSED)
        for key, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, size.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, size.height),
            (cv2.CAP_PROP_FPS, fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),  # of two pictures that wait, the newer one counts
        ):
            self._capture.set(key, value)
        self._facts = self._granted(size, fps)

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    def grab(self) -> Pixels | None:
        has_picture, bgr = self._capture.read()
        if not has_picture:
            return None
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def close(self) -> None:
        self._capture.release()

    def _granted(self, size: PictureSize, fps: float) -> SourceFacts:
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)) or size.width
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) or size.height
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        granted = SourceFacts(
            PictureSize(height, width),
            fps=rate if math.isfinite(rate) and 0 < rate <= HIGHEST_FPS else fps,
            is_live=True,
        )
        logger.info(
            "%s: asked for %s at %g frames/s, got %s at %g",
            self._name, size, fps, granted.size, granted.fps,
        )  # fmt: skip
        return granted


def _listed_cameras(folder: Path) -> list[Camera]:
    """What Linux lists; of the several nodes of one camera, only the first gives pictures."""
    cameras: list[Camera] = []
    for entry in folder.glob("video[0-9]*"):
        try:
            is_picture_node = (entry / "index").read_text().strip() == "0"
            name = (entry / "name").read_text().strip()
        except OSError:
            continue
        if is_picture_node:
            cameras.append(Camera(int(entry.name.removeprefix("video")), name))
    return sorted(cameras, key=lambda camera: camera.index)


def _opens(index: int) -> bool:
    _silence_opencv()
    capture = cv2.VideoCapture(index)
    try:
        return capture.isOpened()
    finally:
        capture.release()


def _check_linux_device(target: int | str) -> None:
    """Say why a camera cannot be opened, where Linux lets us know; OpenCV does not tell."""
    if not sys.platform.startswith("linux"):
        return
    path = Path(f"/dev/video{target}") if isinstance(target, int) else Path(target)
    if not path.exists():
        raise SourceError(f"there is no camera {path}; {_choice(list_cameras())}")
    if not os.access(path, os.R_OK):
        raise SourceError(
            f"no permission to use {path}; run: sudo usermod -aG video $USER, then log in again"
        )


def _choice(cameras: list[Camera]) -> str:
    if not cameras:
        return "no camera is plugged in; plug one in, or try -i synthetic:"
    names = ", ".join(f"webcam:{camera.index} ({camera.name})" for camera in cameras)
    return f"there are {names}; close other programs that use them"


def _backend(target: int | str) -> int:
    is_device = isinstance(target, int) or target.startswith("/dev/")
    return cv2.CAP_V4L2 if sys.platform.startswith("linux") and is_device else cv2.CAP_ANY


def _silence_opencv() -> None:
    """OpenCV writes warnings of its own to standard error; ours say more, in one line."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
