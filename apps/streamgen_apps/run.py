"""`streamgen run`: words or a video in, a video out."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError, SinkError
from streamgen.serving.build import load_config
from streamgen.serving.interrupts import Interrupts
from streamgen.serving.launching import DEFAULT_CODEC, keep_launched_rank, launched
from streamgen.serving.outputs import Outputs, check_outputs
from streamgen.serving.playing import FITS, Progress, open_input, play
from streamgen.serving.ranges import check_seed, check_strength
from streamgen.serving.stream import Stream
from streamgen.serving.timeline import PromptTimeline
from streamgen.serving.warming import warmed_host
from streamgen.types import PictureSize
from streamgen_apps.commands import Commands, read_lines, tell_on_stderr
from streamgen_apps.console import Console
from streamgen_apps.gpu_options import check_gpu_options, host_maker
from streamgen_apps.input_options import (
    STANDARD_INPUT,
    check_input_options,
    prompts_of,
)
from streamgen_apps.logs import begin_logging
from streamgen_apps.watch_options import check_watch_options, write_trace, write_watched

TEXT_PRESET, VIDEO_PRESET = "tiny-cpu", "tiny-cpu-v2v"
DEFAULT_FIT = "crop"
REPORT_EVERY_S = 0.5
PATIENCE_S = 20.0  # with a first picture
ENDLESS_UNFIT = (".gif",)  # outputs that hold everything in one piece
MAX_STEM = 60  # characters of a name made from the prompt


def run(options: argparse.Namespace) -> int:
    """Run one stream to its end; returns the exit code."""
    begin_logging()
    launch = launched()
    if launch is not None and launch.rank > 0:
        return keep_launched_rank(launch, codec=options.codec or DEFAULT_CODEC)
    prompt, later = prompts_of(options)
    check_input_options(options)
    _check_length(options)
    _check_save(options)
    if options.seed is not None:
        check_seed(options.seed)
    if options.strength is not None:
        check_strength(options.strength)
    check_watch_options(options)
    check_gpu_options(options)
    targets = options.outputs or [_free_name(prompt)]
    preset = options.preset
    if preset is None:
        preset = TEXT_PRESET if options.input is None else VIDEO_PRESET
    clock = MonotonicClock()
    picture = load_config(preset, options.overrides).picture
    size = PictureSize(picture.height, picture.width)
    check_outputs(targets, size=size, fps=picture.fps, clock=clock, zoom=options.zoom)
    make = host_maker(preset, options, clock)
    interrupts = Interrupts()
    with interrupts, warmed_host(make, tell_on_stderr, num_streams=1) as host:
        source = None
        if options.input is not None:
            plays = None if options.loop else 1
            source = open_input(options.input, host, plays=plays, in_real_time=options.realtime)
        if source is not None and source.facts.is_endless:
            try:
                _check_end(options)
            except ConfigError:
                source.close()
                raise
        stream = Stream(
            host,
            prompt=prompt,
            timeline=PromptTimeline(later),
            source=source,
            seed=options.seed,
            max_frames=_max_frames(options, host.fps),
            strength=options.strength,
            fit=FITS[options.fit or DEFAULT_FIT],
            mirrored=options.mirror,
            first=options.first,
            resume=options.resume,
            record=options.record,
        )
        commands = Commands(tell_on_stderr, write_trace=partial(write_trace, host=host))
        with stream, Console(commands.put) as console:
            _tell_unknown_words(stream)
            if options.prompts == STANDARD_INPUT and not console.is_reading:
                read_lines(sys.stdin, commands)
            outputs = Outputs(
                targets,
                size=host.picture_size,
                fps=host.fps,
                clock=clock,
                metrics=host.pipeline.metrics,
                zoom=options.zoom,
                input_is_live=source is not None and source.facts.is_live,
            )
            reporter = Reporter(outputs, console)
            quality = QualityTeller(stream, tell_on_stderr)

            def between_frames(progress: Progress) -> None:
                quality.look()
                reporter.report(progress)
                commands.obey(stream)

            with reporter.impatient(str(host.picture_size)):
                progress = play(
                    stream, outputs, clock=clock, report=between_frames, whole=interrupts.held
                )
            reporter.finish(progress)
            if options.save is not None:
                stream.save(Path(options.save).expanduser())
            write_watched(options, host)
    return 0


class QualityTeller:
    """Says in one line when the quality ladder has changed what a stream gets."""

    def __init__(self, stream: Stream, tell: Callable[[str], None]) -> None:
        self._stream = stream
        self._tell = tell
        self._told = stream.quality

    def look(self) -> None:
        quality = self._stream.quality
        if quality != self._told:
            self._tell(f"the stream goes on with {quality} (before: {self._told})")
            self._told = quality


class Reporter:
    """One line on standard error: rewritten on a terminal, written once elsewhere."""

    def __init__(self, outputs: Outputs, console: Console) -> None:
        self._console = console
        self._outputs = outputs
        names = (name.removesuffix(":") for name in outputs.names)
        self._target = ", ".join("standard output" if name == "-" else name for name in names)
        self._is_live = sys.stderr.isatty()
        self._shown_s = 0.0

    @contextlib.contextmanager
    def impatient(self, size: str) -> Generator[None]:
        """Say why nothing is seen, once, if the first picture does not come for long."""
        words = (
            f"streamgen: no picture after {PATIENCE_S:.0f} s; {size} pixels are much work for this "
            f"machine: try --set picture.height=128 --set picture.width=128 (Ctrl-C ends)"
        )
        self._timer = threading.Timer(PATIENCE_S, lambda: print(words, file=sys.stderr))
        self._timer.daemon = True
        self._timer.start()
        try:
            yield
        finally:
            self._timer.cancel()

    def report(self, progress: Progress) -> None:
        self._timer.cancel()
        if self._is_live and progress.elapsed_s - self._shown_s >= REPORT_EVERY_S:
            self._shown_s = progress.elapsed_s
            if self._console.is_reading:
                self._console.show(self._line(progress))
            else:
                print(
                    f"\r{self._line(progress)}  (Ctrl-C ends)", end="", file=sys.stderr, flush=True
                )

    def finish(self, progress: Progress) -> None:
        start = "\r\x1b[K" if self._is_live else ""
        first_s = progress.first_frame_s
        first = "" if first_s is None else f", first frame after {first_s:.2f} s"
        print(f"{start}{self._line(progress)}{first}", file=sys.stderr)
        for name, stats in self._outputs.stats.items():
            if stats.is_notable:
                print(f"{name}: {stats.summary()}", file=sys.stderr)

    def _line(self, progress: Progress) -> str:
        return (
            f"{self._target}: {progress.video_s:.1f} s of video, {progress.num_frames} frames, "
            f"{progress.frames_per_second:.1f} frames/s"
        )


def _check_length(options: argparse.Namespace) -> None:
    for name in ("seconds", "frames"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"--{name} {value:g} is no length; give a number above 0")
    if options.input is None or options.loop:
        _check_end(options)


def _check_end(options: argparse.Namespace) -> None:
    """What goes on for ever must not go into a film that is written in one piece."""
    for output in options.outputs or ():
        ending = Path(output).suffix.lower()
        if ending in ENDLESS_UNFIT and not (options.seconds or options.frames):
            raise ConfigError(f"a {ending} cannot be endless; give --seconds or --frames")


def _check_save(options: argparse.Namespace) -> None:
    """Before anything is made: what cannot be kept at the end is refused at the start."""
    if options.save is None:
        return
    if options.input is not None:
        raise ConfigError("--save keeps text-to-video streams only; leave it out or leave out -i")
    folder = Path(options.save).expanduser().parent
    if Path(options.save).is_dir() or not os.access(folder, os.W_OK):
        raise SinkError(
            f"--save {options.save} cannot be written; name a file in a folder of yours"
        )


def _max_frames(options: argparse.Namespace, fps: float) -> int | None:
    if options.seconds is not None:
        return max(1, round(options.seconds * fps))
    return options.frames


def _free_name(prompt: str) -> str:
    """A film named after the prompt that does not stand there yet."""
    words = "-".join(re.findall(r"[a-z0-9]+", prompt.lower())[:6])
    stem = words[:MAX_STEM].rstrip("-") or "stream"
    names = (f"{stem}{ending}.mp4" for ending in _numbered())
    return next(name for name in names if not Path(name).exists())


def _numbered() -> Iterator[str]:
    yield ""
    for number in itertools.count(2):
        yield f"-{number}"


def _tell_unknown_words(stream: Stream) -> None:
    if stream.unknown_words:
        words = ", ".join(stream.unknown_words[:12])
        print(
            f"streamgen: the model does not know: {words}; it {stream.knowledge}", file=sys.stderr
        )
