"""One stream of a server, as a program sees it: an iterator of frames."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from pydantic import TypeAdapter

from streamgen.errors import ConnectionLostError, RefusedError
from streamgen.serving.gateway.messages import (
    IN_FLIGHT,
    NO_CAMERA,
    Change,
    Command,
    Ended,
    Figures,
    GrantedSettings,
    Moved,
    Pause,
    Problem,
    Report,
    Reset,
    Resume,
    Shown,
    StampedPicture,
    Start,
    Stop,
    Taken,
    Waiting,
    pack_picture,
    unpack_picture,
)
from streamgen.types import Pixels

MS = 1000.0
TAIL_S = 1.0  # that `restyle` waits for what was drawn from its last pictures

_REPORTS: TypeAdapter[Report] = TypeAdapter(Report)


@dataclass(frozen=True, slots=True)
class ClientFrame:
    """A picture [H, W, 3] from the server.

    `pts_s`: its place in a stream that is made from text; for a restyled input the time that
    `Session.show` was given with the picture that it was drawn from.
    """

    pixels: Pixels
    pts_s: float


class Session:
    """One stream: an iterator of frames and a context manager; made by `Client.open`.

    Read it from one thread; its settings may be changed from another one.
    """

    def __init__(self, socket: Any, start: Start) -> None:
        self._socket = socket
        self._frames: deque[ClientFrame] = deque()
        self._num_on_the_way = 0
        self._has_ended = False
        self._granted: GrantedSettings | None = None
        self.figures: Figures | None = None
        """How the stream did over the last second, as the server sees it."""
        self.position = 0
        """In the server's line before the stream began."""
        self.wanted_fps = 0.0
        """Pictures a second that the server can use."""
        self.num_moves = 0
        """How often the stream went on in another process of the server."""
        try:
            self._say(start)
            while self._granted is None:
                self._take_message(None)
                if self._has_ended:
                    raise ConnectionLostError("the server ended the stream before it began")
        except BaseException:
            socket.close()
            raise

    @property
    def granted(self) -> GrantedSettings:
        """What the stream is now."""
        assert self._granted is not None, "a session is made when it has been granted"
        return self._granted

    @property
    def name(self) -> str:
        """In `Client.sessions`."""
        return self.granted.session

    def __iter__(self) -> Iterator[ClientFrame]:
        return self

    def __next__(self) -> ClientFrame:
        """The next picture; StopIteration when the stream has ended.

        Raises RefusedError if something asked for could not be (and then the stream goes on), or
        if the server failed; ConnectionLostError if it is gone.
        """
        while not self._frames:
            if self._has_ended:
                raise StopIteration
            self._take_message(None)
        return self._frames.popleft()

    def show(self, pixels: Pixels, pts_s: float) -> None:
        """Give a picture [H, W, 3] to be restyled; waits while two are on the way.

        Pictures that come back meanwhile are there for `next`. `pts_s`, 0 or more, comes back with
        what is drawn from it.
        """
        if pts_s < 0:
            raise ValueError(f"{pts_s} s is before the stream")
        while self._num_on_the_way >= IN_FLIGHT and not self._has_ended:
            self._take_message(None)
        if self._has_ended:
            return
        self._num_on_the_way += 1
        self._send(pack_picture(StampedPicture(MS * pts_s, _jpeg(pixels))))

    def restyle(self, pictures: Iterable[Pixels], *, fps: float = 30.0) -> Iterator[ClientFrame]:
        """What the server draws from pictures, as it comes; some may be left out to stay live."""
        for index, pixels in enumerate(pictures):
            self.show(pixels, index / fps)
            while self._take_message(0.0):
                pass
            while self._frames:
                yield self._frames.popleft()
        while not self._has_ended and (self._frames or self._take_message(TAIL_S)):
            while self._frames:
                yield self._frames.popleft()

    def change(
        self,
        *,
        prompt: str | None = None,
        over_chunks: int | None = None,
        seed: int | None = None,
        strength: float | None = None,
        steps: int | None = None,
    ) -> None:
        """Draw otherwise from the next chunk on; `granted` says so when it is so.

        A new prompt takes over within `over_chunks` chunks, or as the preset says.
        """
        self._say(
            Change(
                prompt=prompt, over_chunks=over_chunks, seed=seed, strength=strength, steps=steps
            )
        )

    def pause(self) -> None:
        self._say(Pause())

    def resume(self) -> None:
        self._say(Resume())

    def reset(self) -> None:
        """Begin anew, as the stream is now."""
        self._say(Reset())

    def close(self) -> None:
        """End the stream; once is enough, twice does no harm."""
        if not self._has_ended:
            self._has_ended = True
            with contextlib.suppress(ConnectionLostError, RefusedError):  # it is over anyway
                self._say(Stop())
        self._socket.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take_message(self, timeout_s: float | None) -> bool:
        """Wait for one message and follow it; False if none came in time."""
        from websockets.exceptions import ConnectionClosed

        try:
            data = self._socket.recv(timeout=timeout_s)
        except TimeoutError:
            return False
        except ConnectionClosed as error:
            self._has_ended = True
            raise _lost(error) from error
        if isinstance(data, bytes):
            picture = unpack_picture(data)
            self._say(Shown())
            stamp_ms = picture.stamp_ms
            pts_ms = stamp_ms if stamp_ms >= 0 else NO_CAMERA - stamp_ms
            self._frames.append(ClientFrame(_pixels(picture.jpeg), pts_ms / MS))
        else:
            self._hear(_REPORTS.validate_json(data))
        return True

    def _hear(self, report: Report) -> None:
        match report:
            case GrantedSettings():
                self._granted = report
            case Waiting(position=position):
                self.position = position
            case Figures():
                self.figures = report
            case Taken(fps=fps):
                self.wanted_fps = fps
                self._num_on_the_way = max(0, self._num_on_the_way - 1)
            case Moved():
                self.num_moves += 1
            case Problem():
                self._has_ended = self._has_ended or report.fatal
                raise RefusedError(
                    report.message,
                    retryable=report.retryable,
                    retry_after_s=report.retry_after_s,
                )
            case Ended():
                self._has_ended = True
            case _:
                pass

    def _say(self, command: Command) -> None:
        self._send(command.model_dump_json())

    def _send(self, data: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(data)
        except ConnectionClosed as error:
            self._has_ended = True
            raise _lost(error) from error


def _lost(error: Exception) -> RefusedError | ConnectionLostError:
    """A server that closes with "try again later" has said no, and when."""
    code = getattr(getattr(error, "rcvd", None), "code", None)
    if code in (1012, 1013):  # RFC 6455's registry: service restart, try again later
        return RefusedError(f"the server closed: {error}", retryable=True, retry_after_s=1.0)
    return ConnectionLostError(f"the server is gone: {error}")


def _jpeg(pixels: Pixels) -> bytes:
    is_written, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert is_written, "a picture of uint8 can be a JPEG"
    return data.tobytes()


def _pixels(jpeg: bytes) -> Pixels:
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    if decoded is None:
        raise ConnectionLostError("the server sent a picture that is no JPEG; it is of no use")
    return np.asarray(decoded, np.uint8)
