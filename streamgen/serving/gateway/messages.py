"""What a page and the server say to each other: JSON texts, one object each, `type` says which.

    page                                        server
                                         <----  offer: what there is
    start (preset, prompt, ...)           ---->
                                         <----  waiting (position), as often as it changes
                                         <----  granted: what the stream is; again after changes
    pictures                             <--->  pictures
    change, pause, resume, reset          ---->
                                         <----  figures, each second
                                         <----  problem: what could not be, and whether to retry
                                         <----  moved: the stream goes on in another process
    stop                                  ---->
                                         <----  ended

Pictures go beside the texts. Over a WebSocket they are binary messages: eight bytes, little-endian
float64, and a JPEG. The number is the page's own time of capture, in milliseconds; it comes back
with the picture that was drawn from it; a picture that was drawn from words has a negative number,
-1 - its place in the stream in milliseconds. Each picture from the page is
answered by `taken`, each one from the server by `shown`, and neither side has more than two on the
way. Over WebRTC pictures are a video track each way.

Knows no network; a text that is not one of these is a ConfigError.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from streamgen.errors import CapacityError, ConfigError, StreamGenError

MAX_TEXT_CHARACTERS = 20_000  # of a message from a page: a prompt, or a session description
IN_FLIGHT = 2  # pictures on the way in each direction, so that the network is never a queue
NO_CAMERA = -1.0  # time of capture of a picture that was drawn from words, at the stream's begin

_STAMP = struct.Struct("<d")


class Message(BaseModel):
    """Frozen; unknown or mistyped fields are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


# From a page


class Start(Message):
    """Begin a stream; one that runs is ended before."""

    type: Literal["start"] = "start"
    preset: str = Field(max_length=200)
    prompt: str = Field(max_length=MAX_TEXT_CHARACTERS)
    seed: int | None = None
    strength: float | None = None
    steps: int | None = None
    snapshot: str | None = Field(default=None, max_length=100)
    """Go on where another stream was: what the server called the snapshot that it was given."""
    wait: bool = True
    """Whether to wait in line where all places are taken; else that is a problem."""


class Change(Message):
    """Draw otherwise from the next chunk on; what is left out stays."""

    type: Literal["change"] = "change"
    prompt: str | None = Field(default=None, max_length=MAX_TEXT_CHARACTERS)
    over_chunks: int | None = None
    """Within how many chunks the new prompt takes over; by default as the preset says."""
    seed: int | None = None
    strength: float | None = None
    steps: int | None = None


class Pause(Message):
    type: Literal["pause"] = "pause"


class Resume(Message):
    type: Literal["resume"] = "resume"


class Reset(Message):
    """Begin anew: the same stream, from its first chunk."""

    type: Literal["reset"] = "reset"


class Stop(Message):
    """End the stream and leave the place to somebody else; the connection stays."""

    type: Literal["stop"] = "stop"


class Shown(Message):
    """One more picture has reached the screen."""

    type: Literal["shown"] = "shown"


Command = Start | Change | Pause | Resume | Reset | Stop | Shown

# From the server


class PresetOffer(Message):
    name: str
    description: str
    knowledge: str
    takes_video: bool
    width: int
    height: int
    fps: float
    steps: int


class Offer(Message):
    """The first message: what can be started here."""

    type: Literal["offer"] = "offer"
    presets: list[PresetOffer]
    places: int
    """Streams that can run at once."""


class Waiting(Message):
    """All places are taken; this many are in front, the next one included: 1 is the next."""

    type: Literal["waiting"] = "waiting"
    position: int


class GrantedSettings(Message):
    """What the stream is now, which may be less than was wished for."""

    type: Literal["granted"] = "granted"
    preset: str
    takes_video: bool
    prompt: str
    seed: int
    strength: float | None
    steps: int
    width: int
    height: int
    unknown_words: list[str]
    """Of the prompt, that have no effect."""
    knowledge: str
    session: str
    """Its name in /streamgen/sessions."""
    fps: float
    """Of a stream that is made from text; a restyled input keeps its own rate."""
    quality: str
    """Either "full" or the rung of the service level that it was let in at."""


class Taken(Message):
    """One more picture has arrived; `fps` is how many a second can be used."""

    type: Literal["taken"] = "taken"
    fps: float


class Figures(Message):
    """How the stream does, over the last second."""

    type: Literal["figures"] = "figures"
    fps: float
    """Pictures handed out."""
    age_ms: float | None
    """From a picture's arrival here to that of its successor, median."""
    input_fps: float
    """Pictures taken."""
    wanted_fps: float
    """Pictures that should be sent."""
    dropped: int
    """Since the start: pictures that came too fast, in or out."""
    streams: int
    """Running here, of all visitors."""
    places: int
    quality: str
    """As in `granted`."""


class Problem(Message):
    """Something could not be done, in one line; a fatal problem ends the stream."""

    type: Literal["problem"] = "problem"
    message: str
    retryable: bool
    """Whether the same may work later."""
    fatal: bool
    retry_after_s: float | None = None
    """When, where that is known."""


class Moved(Message):
    """The stream goes on in another process, from its last pictures; `granted` comes again."""

    type: Literal["moved"] = "moved"
    reason: str
    gap_s: float
    """For which nothing was drawn."""


class Ended(Message):
    type: Literal["ended"] = "ended"


Report = Offer | Waiting | GrantedSettings | Taken | Figures | Problem | Moved | Ended

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])


def read_command(text: str) -> Command:
    """Raises ConfigError, in one line, for what is no command."""
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ConfigError(f"a message of {len(text)} characters; at most {MAX_TEXT_CHARACTERS}")
    try:
        return _COMMANDS.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise ConfigError(f"not a message of this server: {where}: {first['msg']}") from None


def problem_of(error: StreamGenError, *, fatal: bool) -> Problem:
    """What a visitor is told of an error."""
    is_retryable, retry_after_s = False, None
    if isinstance(error, CapacityError):
        is_retryable, retry_after_s = error.retry_in_s != math.inf, error.retry_in_s
    return Problem(
        message=str(error),
        retryable=is_retryable,
        fatal=fatal,
        retry_after_s=retry_after_s if is_retryable else None,
    )


@dataclass(frozen=True, slots=True)
class StampedPicture:
    """A JPEG and the page's time of its capture."""

    stamp_ms: float
    jpeg: bytes


def text_stamp_ms(pts_s: float) -> float:
    """The number before a picture that was drawn from words."""
    return NO_CAMERA - 1000.0 * pts_s


def pack_picture(picture: StampedPicture) -> bytes:
    return _STAMP.pack(picture.stamp_ms) + picture.jpeg


def unpack_picture(data: bytes) -> StampedPicture:
    """Raises ConfigError if there is no picture behind the number, or no number before it."""
    if len(data) <= _STAMP.size:
        raise ConfigError(f"a picture message of {len(data)} bytes holds no picture; send a JPEG")
    stamp_ms: float = _STAMP.unpack_from(data)[0]
    if not math.isfinite(stamp_ms):
        raise ConfigError(f"a picture was captured at {stamp_ms}; send milliseconds")
    return StampedPicture(stamp_ms, data[_STAMP.size :])
