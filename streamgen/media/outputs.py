"""From what a user writes after -o to a sink that can be opened, and opened again.

    -o film.mp4   -o -   -o y4m:   -o raw:   -o null:   -o rtmp://host/live/key   -o stream.m3u8
    -o virtualcam:   -o preview:   -o mjpeg://127.0.0.1:8090   -o whep://127.0.0.1:8091
    -o whip:https://host/whip/room

One table: a new scheme is one entry. What says nothing known is a ConfigError, raised before
anything is opened; what names something that cannot be opened is a SinkError.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from streamgen.clock import Clock, MonotonicClock
from streamgen.errors import SinkError
from streamgen.media.outlet import Pace, SinkPlan
from streamgen.media.sink import FrameSink, writing_failed
from streamgen.media.sinks.encoding import ENCODINGS
from streamgen.media.sinks.mjpeg import MjpegSink
from streamgen.media.sinks.network import (
    FORMATS,
    NetworkSink,
    name_without_secrets,
    network_target,
)
from streamgen.media.sinks.null import NullSink
from streamgen.media.sinks.pipe import RawPipeSink, Y4mPipeSink
from streamgen.media.sinks.preview import PreviewSink
from streamgen.media.sinks.video_file import (
    VideoFileSink,
    check_ending,
    check_folder,
    check_place,
)
from streamgen.media.sinks.viewers import page_address
from streamgen.media.sinks.virtual_camera import CAMERA_FPS, VirtualCameraSink
from streamgen.media.sinks.whep import WhepSink
from streamgen.media.sinks.whip import WhipSink, whip_target
from streamgen.media.sources.options import NamedSource
from streamgen.media.specs import nothing_after, path_of, split_spec
from streamgen.types import PictureSize

STANDARD_OUTPUT = 1  # file descriptor
PLAYLIST = ".m3u8"


@dataclass(frozen=True, slots=True)
class SinkWishes:
    """What the stream gives to its sinks: pictures of `size`, `fps` of them a second."""

    size: PictureSize
    fps: float
    clock: Clock


def plan_sink(spec: str, *, size: PictureSize, fps: float, clock: Clock | None = None) -> SinkPlan:
    """Understand what -o names. Raises ConfigError; opens nothing."""
    wishes = SinkWishes(size=size, fps=fps, clock=clock or MonotonicClock())
    scheme, rest = split_spec("-o", spec, SINK_SCHEMES, others=("-", "a file", *ENCODINGS))
    if scheme is not None:
        return SINK_SCHEMES[scheme](spec, rest, wishes)
    if spec == "-":
        return _plan_y4m(spec, "", wishes)
    if spec.lower().endswith(PLAYLIST):
        return _plan_network(spec, "hls", str(path_of(spec)), wishes)
    if not (spec.endswith("/") or os.path.isdir(path_of(spec))):
        check_ending(path_of(spec))
    return SinkPlan(
        spec, partial(_open_file, spec, wishes), Pace.ALL, check=partial(_check_file, spec)
    )


def open_sink(spec: str, *, size: PictureSize, fps: float) -> FrameSink:
    """Open what -o names, for pictures of `size` at `fps`; its owner closes or aborts it."""
    return plan_sink(spec, size=size, fps=fps).open()


def _check_file(spec: str) -> Path:
    if spec.endswith("/") or os.path.isdir(path_of(spec)):
        raise SinkError(f"{spec} names a folder; name a file in it")
    return check_place(path_of(spec))


def _open_file(spec: str, wishes: SinkWishes) -> FrameSink:
    _check_file(spec)
    return VideoFileSink(path_of(spec), wishes.size, fps=wishes.fps)


def _plan_null(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    del wishes
    nothing_after("null", rest)
    return SinkPlan(spec, NullSink, Pace.ALL)


def _plan_raw(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    nothing_after("raw", rest)
    return SinkPlan(
        "-",
        lambda: RawPipeSink(_standard_output(), wishes.size),
        Pace.ALL,
        check=_check_standard_output,
    )


def _plan_y4m(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    nothing_after("y4m", rest)
    return SinkPlan(
        "-",
        lambda: Y4mPipeSink(_standard_output(), wishes.size, fps=wishes.fps),
        Pace.ALL,
        check=_check_standard_output,
    )


def _plan_url(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    return _plan_network(spec, spec.partition(":")[0].lower(), spec, wishes)


def _plan_network(spec: str, protocol: str, url: str, wishes: SinkWishes) -> SinkPlan:
    target = network_target(url, protocol, wishes.size, wishes.fps)

    def check() -> None:
        if protocol == "hls":
            check_folder(path_of(url).parent, path_of(url))

    def opened() -> FrameSink:
        check()
        return NetworkSink(target)

    return SinkPlan(
        target.name,
        opened,
        Pace.CONSTANT,
        reopens=True,
        waits_for_reader=target.is_listening,
        check=check,
    )


def _plan_virtual_camera(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    named = NamedSource.parse("virtualcam", rest, known=("size", "fps"))
    size, fps = named.size or wishes.size, named.fps or CAMERA_FPS

    def opened() -> FrameSink:
        return VirtualCameraSink(size, fps=fps, device=named.name or None)

    return SinkPlan(spec.partition(",")[0], opened, Pace.CONSTANT, fps=fps, reopens=True)


def _plan_mjpeg(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    del rest
    address = page_address(spec)
    return SinkPlan(_page_name(spec), lambda: MjpegSink(address, wishes.size), Pace.SHOWN)


def _plan_whep(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    del rest
    address = page_address(spec)
    return SinkPlan(
        _page_name(spec), lambda: WhepSink(address, wishes.size, wishes.clock), Pace.CONSTANT
    )


def _plan_whip(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    del spec
    target = whip_target(rest)
    return SinkPlan(
        f"whip:{name_without_secrets(target.url)}",
        lambda: WhipSink(target, wishes.size, wishes.clock),
        Pace.CONSTANT,
        reopens=True,
    )


def _page_name(spec: str) -> str:
    return spec.partition("?")[0].rstrip("/")


def _plan_preview(spec: str, rest: str, wishes: SinkWishes) -> SinkPlan:
    nothing_after("preview", rest)
    return SinkPlan(spec, lambda: PreviewSink(wishes.size, fps=wishes.fps), Pace.SHOWN)


def _check_standard_output() -> None:
    if os.isatty(STANDARD_OUTPUT):
        raise SinkError("standard output is a terminal; pipe it: ... -o - | ffplay -")


def _standard_output() -> BinaryIO:
    """A stream of its own, so that a pipe broken here leaves nothing unsent in sys.stdout."""
    _check_standard_output()
    try:
        if sys.stdout is not None:  # in a program that began without one
            sys.stdout.flush()
        return os.fdopen(os.dup(STANDARD_OUTPUT), "wb")
    except OSError as error:
        raise writing_failed(error, "standard output") from error


SINK_SCHEMES: Mapping[str, Callable[[str, str, SinkWishes], SinkPlan]] = {
    "null": _plan_null,
    "raw": _plan_raw,
    "y4m": _plan_y4m,
    "virtualcam": _plan_virtual_camera,
    "preview": _plan_preview,
    "mjpeg": _plan_mjpeg,
    "whep": _plan_whep,
    "whip": _plan_whip,
    **dict.fromkeys((scheme for scheme in FORMATS if scheme != "hls"), _plan_url),
}
