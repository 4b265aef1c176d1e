"""RGB pictures into the bytes of a video file or a network stream, with PyAV (FFmpeg).

One table says which file endings there are and how each is encoded. Knows nothing of where the
bytes go: names, renaming and full disks are streamgen.media.sinks.video_file's.
"""

# PyAV's annotations leave the parameters of Packet and add_stream open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

import av
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from streamgen.media import pixels as picture
from streamgen.types import PictureSize, Pixels

BT709 = 1  # in the numbering of ITU-T H.273, for primaries, transfer and matrix alike
LIMITED_RANGE = 1  # FFmpeg's AVCOL_RANGE_MPEG
KEYFRAME_INTERVAL_S = 2.0  # how far a player that seeks may miss its aim
FRAGMENT_S = 0.25  # what a crash loses at most of a .mp4, beyond the frames inside the encoder


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the pictures of one kind of file are encoded."""

    container: str  # FFmpeg's name of the file format
    codec: str  # FFmpeg's name of the encoder
    pixel_format: str
    codec_options: Mapping[str, str] = field(default_factory=dict[str, str])
    container_options: Mapping[str, str] = field(default_factory=dict[str, str])


_H264 = {"crf": "18", "preset": "veryfast"}
_VP9 = {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1"}
# Fragments: the index travels with the pictures, so that a file without an end can be played.
# They end by time and not with the next keyframe, which a scene cut may set anywhere.
_FRAGMENTED = {
    "movflags": "empty_moov+default_base_moof",
    "frag_duration": str(round(FRAGMENT_S * 1e6)),
}
# What the muxer has finished goes to the file at once: a process that is killed loses none of it.
_UNBUFFERED = {"flush_packets": "1"}

ENCODINGS: Mapping[str, Encoding] = {
    ".mp4": Encoding("mp4", "libx264", "yuv420p", _H264, _FRAGMENTED),
    ".mov": Encoding("mov", "libx264", "yuv420p", _H264, _FRAGMENTED),
    ".mkv": Encoding("matroska", "libx264", "yuv420p", _H264),
    ".webm": Encoding("webm", "libvpx-vp9", "yuv420p", _VP9),
    ".gif": Encoding("gif", "gif", "pal8"),
}


class Encoder:
    """Encodes pictures of `size` into `file`, which it does not close, or to an address.

    Whatever goes wrong in writing to `file` is raised by the call that notices: OSError as `file`
    raised it, or av.error.FFmpegError.
    """

    def __init__(
        self, file: BinaryIO | str, encoding: Encoding, size: PictureSize, *, fps: float
    ) -> None:
        rate = Fraction(fps).limit_denominator(1001)
        options = {**_UNBUFFERED, **encoding.container_options}
        self._container = av.open(file, mode="w", format=encoding.container, options=options)
        stream = self._container.add_stream(encoding.codec, rate=rate)
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._time_base = 1 / rate
        stream.width = size.width + size.width % 2
        stream.height = size.height + size.height % 2
        stream.pix_fmt = encoding.pixel_format
        stream.options = dict(encoding.codec_options)
        stream.time_base = self._time_base
        stream.gop_size = max(1, round(KEYFRAME_INTERVAL_S * fps))
        self._convert: Callable[[VideoFrame], VideoFrame]
        if encoding.pixel_format == "pal8":
            self._convert = _Palette(stream.width, stream.height, self._time_base).convert
        else:
            self._convert = _to_bt709
            stream.codec_context.colorspace = BT709
            stream.codec_context.color_primaries = BT709
            stream.codec_context.color_trc = BT709
            stream.codec_context.color_range = LIMITED_RANGE

    def begin(self) -> None:
        """Write the file's head now, or connect, and not with the first picture."""
        self._container.start_encoding()

    def encode(self, pixels: Pixels, index: int) -> None:
        """Show `pixels` from index / fps on; `index` grows strictly."""
        frame = VideoFrame.from_ndarray(picture.pad_to_even(pixels), format="rgb24")
        frame.pts = index
        frame.time_base = self._time_base
        converted = self._convert(frame)
        converted.pts = index
        converted.time_base = self._time_base
        self._container.mux(self._stream.encode(converted))

    def finish(self) -> None:
        """Write what is still inside the encoder, and the file's end."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def discard(self) -> None:
        """Let go without caring for what was not yet written."""
        self._container.close()


def _to_bt709(frame: VideoFrame) -> VideoFrame:
    return frame.reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )


class _Palette:
    """The 256 best colours of each picture by itself, as GIF needs them."""

    def __init__(self, width: int, height: int, time_base: Fraction) -> None:
        graph = Graph()
        self._source = graph.add_buffer(
            width=width, height=height, format=VideoFormat("rgb24"), time_base=time_base
        )
        split = graph.add("split")
        generate = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=3")
        self._sink = graph.add("buffersink")
        self._source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(generate, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(self._sink)
        graph.configure()
        self._graph = graph

    def convert(self, frame: VideoFrame) -> VideoFrame:
        self._source.push(frame)
        converted = self._sink.pull()
        assert isinstance(converted, VideoFrame)
        return converted
