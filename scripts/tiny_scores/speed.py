"""Seconds of streams, of their parts, and memory over time."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from streamgen.metrics.json_value import Json
from streamgen.metrics.stats import Percentiles
from streamgen.serving.bench.machine import spread
from streamgen.serving.host import Host
from streamgen.serving.playing import open_input
from streamgen.serving.stream import Stream
from streamgen.types import Clip
from tiny_scores.results import Facts

PROMPT = "a red ball bouncing over a green field during the day"
STYLE_PROMPT = "a pencil sketch"
MEMORY_EVERY = 100  # frames
SETTLING_FRAMES = 500  # not in the slope: allocators fill their pools first


def open_plain(host: Host, *, seed: int = 0) -> Stream:
    """An endless stream of the host's task: from a prompt, or over endless test pictures."""
    if not host.takes_video:
        return Stream(host, prompt=PROMPT, seed=seed)
    source = open_input("synthetic:", host)
    return Stream(host, prompt=STYLE_PROMPT, source=source, seed=seed)


def frames_per_second(
    host: Host, *, num_streams: int, num_frames: int, repeats: int, warm_up: int
) -> list[float]:
    """Frames of all streams together a second, read in turn, once for every repeat."""
    with ExitStack() as stack:
        streams = [stack.enter_context(open_plain(host, seed=s)) for s in range(num_streams)]
        _read(streams, warm_up)
        rates = []
        for _ in range(repeats):
            seconds = _seconds(lambda: _read(streams, num_frames))
            rates.append(num_streams * num_frames / seconds)
        return rates


def _read(streams: Sequence[Stream], num_frames: int) -> None:
    for _ in range(num_frames):
        for stream in streams:
            next(stream)


def _seconds(run: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s


def first_frame_warm_s(host: Host, *, repeats: int) -> list[float]:
    """From opening another stream on a host that has run before to its first frame."""

    def first() -> None:
        with open_plain(host) as stream:
            next(stream)

    first()
    return [_seconds(first) for _ in range(repeats)]


def part_times(host: Host, *, repeats: int) -> Facts:
    """Milliseconds of encoding and decoding one chunk and of one tick of the DiT, by rows.

    A tick is what the engine's metrics saw of the host's streams so far; a row of it is one step
    of one chunk (or, in a preset with a clean cache, the pass that writes it).
    """
    pipeline = host.pipeline
    stride = pipeline.bundle.codec.facts.temporal_stride
    size = pipeline.picture_size
    pixels = np.random.default_rng(0).integers(0, 256, (stride, size.height, size.width, 3))
    clip = Clip(pixels.astype(np.uint8), 0.0, 0.0)
    encoder, decoder = pipeline.new_encoder(), pipeline.new_decoder()
    latents_FCHW = encoder.encode(encoder.pixels(clip))

    def decode() -> None:
        decoder.decode(latents_FCHW, num_frames=stride, pts_s=0.0, captured_s=0.0).wait()

    decode()
    encode_s = [_seconds(lambda: encoder.encode(encoder.pixels(clip))) for _ in range(repeats)]
    decode_s = [_seconds(decode) for _ in range(repeats)]
    prompt_s = [_seconds(lambda: pipeline.bundle.text.encode(PROMPT)) for _ in range(repeats)]
    ticks = pipeline.metrics.summary("streamgen_tick_seconds", "Seconds of a batch.").percentiles()
    rows = pipeline.metrics.summary("streamgen_batch_rows", "Rows of a batch.").percentiles()
    return {
        "frames_a_chunk": stride,
        "encode_ms": spread([1e3 * one for one in encode_s]),
        "decode_ms": spread([1e3 * one for one in decode_s]),
        "prompt_ms": spread([1e3 * one for one in prompt_s]),
        "tick_ms": _percentiles(ticks, 1e3),
        "rows_a_tick": _percentiles(rows, 1.0),
    }


def _percentiles(seen: Percentiles, scale: float) -> Facts:
    named = {"p50": seen.p50, "p99": seen.p99, "highest": seen.highest}
    shown: Facts = {
        name: None if value is None else round(scale * value, 2) for name, value in named.items()
    }
    return shown | {"count": seen.count}


def memory(host: Host, *, num_frames: int) -> Facts:
    """Resident memory of this process over one long stream, and its slope by least squares."""
    settling = min(SETTLING_FRAMES, num_frames // 2)
    frames, sizes_mb = [], []
    with open_plain(host) as stream:
        for index in range(num_frames + 1):
            if index % MEMORY_EVERY == 0:
                frames.append(index)
                sizes_mb.append(resident_mb())
            next(stream)
    late = [index for index, frame in enumerate(frames) if frame >= settling]
    slope: Json = None
    if len(late) >= 2:
        x, y = (np.array([values[i] for i in late]) for values in (frames, sizes_mb))
        slope = round(float(np.polyfit(x, y, 1)[0]) * 1000, 4)
    return {
        "frames": num_frames,
        "first_mb": round(sizes_mb[0], 1),
        "settled_mb": round(sizes_mb[late[0]], 1) if late else None,
        "last_mb": round(sizes_mb[-1], 1),
        "highest_ever_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "settling_frames": settling,
        "slope_mb_per_1000_frames": slope,
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20
