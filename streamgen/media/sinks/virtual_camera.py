"""Pictures as a camera that other programs see: OBS's driver, or v4l2loopback on Linux.

    -o virtualcam:   -o virtualcam:/dev/video9   -o virtualcam:,size=1280x720,fps=30

Opened once and never closed while the stream runs: a video call does not survive a camera that
goes. pyvirtualcam (GPL-2) is an optional package and imported here only.
"""

# pyvirtualcam has no type stubs.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from streamgen.errors import SinkError, install_command
from streamgen.media import pixels as picture
from streamgen.types import Frame, PictureSize

if TYPE_CHECKING:
    import pyvirtualcam

CAMERA_FPS = 30.0  # what programs expect of a camera, whatever the stream's own rate
REMEDIES = {
    "linux": "sudo apt install v4l2loopback-dkms && sudo modprobe v4l2loopback devices=1 "
    "exclusive_caps=1 card_label=StreamGen",
    "darwin": "install OBS Studio 30 or newer, press Start Virtual Camera once in it, allow it in "
    "System Settings, and press Stop",
    "win32": "install OBS Studio from obsproject.com, which brings the driver",
}


class VirtualCameraSink:
    """A camera of a fixed size; pictures of another size get bars. The caller keeps the rate."""

    def __init__(
        self, size: PictureSize, *, fps: float = CAMERA_FPS, device: str | None = None,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        """Open `device`, by default the first that there is. Raises SinkError with the remedy."""
        self._size = PictureSize(size.height + size.height % 2, size.width + size.width % 2)
        self._camera = _opened(self._size, fps, device, backend)

    @property
    def device(self) -> str:
        """The name by which other programs know it."""
        return self._camera.device

    def write(self, frame: Frame) -> None:
        pixels = picture.letterbox(frame.pixels, self._size)
        try:
            self._camera.send(np.ascontiguousarray(pixels))
        except (RuntimeError, OSError) as error:
            raise SinkError(f"the virtual camera failed: {_first_line(error)}") from error

    def close(self) -> None:
        self._camera.close()

    def abort(self) -> None:
        self._camera.close()


def _opened(
    size: PictureSize, fps: float, device: str | None, backend: str | None
) -> pyvirtualcam.Camera:
    try:
        import pyvirtualcam
    except ImportError as error:
        raise SinkError(
            "virtualcam: needs the package pyvirtualcam, which is not installed; "
            f"{install_command('virtualcam')}"
        ) from error
    try:
        return pyvirtualcam.Camera(size.width, size.height, fps, device=device, backend=backend)
    except (RuntimeError, OSError) as error:
        raise SinkError(_advice(error, device)) from error


def _advice(error: Exception, device: str | None) -> str:
    """What to do, for this system."""
    told = _first_line(error)
    remedy = REMEDIES.get(sys.platform, "see the documentation of pyvirtualcam")
    if "No v4l2 loopback device" in told or "not found" in told or "does not exist" in told:
        which = f" {device}" if device else ""
        return f"there is no virtual camera{which} on this machine; {remedy}"
    if "permission" in told.lower():
        return f"no permission for the virtual camera; sudo usermod -aG video $USER ({told})"
    return f"cannot open the virtual camera: {told}; if its driver is missing: {remedy}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
