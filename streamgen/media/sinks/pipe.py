"""Frames into a binary stream, such as standard output, for another program to read.

    streamgen run "a red ball" -o - | ffplay -

Y4M tells its reader the size and the rate; raw rgb24 tells nothing and loses nothing. The rate is
constant: timestamps are not carried. A reader that goes away raises SinkClosed, the quiet end of a
run. Knows neither files nor devices.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import BinaryIO

import cv2
import numpy as np

from streamgen.media import pixels as picture
from streamgen.media.sink import SinkClosed, writing_failed
from streamgen.types import Frame, PictureSize, Pixels


class _PipeSink(ABC):
    """Owns `stream` and closes it; each frame is flushed, so that a viewer sees it at once."""

    def __init__(self, stream: BinaryIO, size: PictureSize) -> None:
        self._stream = stream
        self._size = size
        self._is_broken = False

    def write(self, frame: Frame) -> None:
        self._send(self._encoded(picture.letterbox(frame.pixels, self._size)))

    def close(self) -> None:
        try:
            if not self._is_broken:
                self._send(b"")
        except SinkClosed:
            pass  # everything was sent, or nobody wants the rest
        finally:
            with contextlib.suppress(OSError):
                self._stream.close()

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()

    def _send(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except (BrokenPipeError, ConnectionError) as error:
            self._is_broken = True
            raise SinkClosed("the reader of this pipe has gone") from error
        except OSError as error:
            self._is_broken = True
            raise writing_failed(error, "the pipe") from error

    @abstractmethod
    def _encoded(self, pixels: Pixels) -> bytes: ...


class RawPipeSink(_PipeSink):
    """rgb24, row by row, frame after frame, and nothing else."""

    def _encoded(self, pixels: Pixels) -> bytes:
        return pixels.tobytes()


class Y4mPipeSink(_PipeSink):
    """YUV4MPEG2 with 4:2:0 chroma: BT.601, limited range; odd sizes grow by a row or a column."""

    def __init__(self, stream: BinaryIO, size: PictureSize, *, fps: float) -> None:
        super().__init__(stream, size)
        rate = Fraction(fps).limit_denominator(1001)
        width, height = size.width + size.width % 2, size.height + size.height % 2
        self._header = (
            f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip A1:1 "
            "C420jpeg XYSCSS=420JPEG XCOLORRANGE=LIMITED\n"
        ).encode()

    def _encoded(self, pixels: Pixels) -> bytes:
        header, self._header = self._header, b""
        planes = cv2.cvtColor(picture.pad_to_even(pixels), cv2.COLOR_RGB2YUV_I420)
        return header + b"FRAME\n" + np.ascontiguousarray(planes).tobytes()
