"""Options of `streamgen run` that say what goes in: an input video, and prompts with times."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamgen.errors import ConfigError

if TYPE_CHECKING:
    from streamgen.serving.timeline import TimedPrompt

STANDARD_INPUT = "-"
INPUTS = """\
inputs (-i):
  film.mp4  picture.png         a file; a picture is held still, as a camera before a wall
  webcam:  webcam:1             a camera; webcam:0,size=1280x720,fps=30 asks for more of it
  rtsp:// rtmp:// srt://        a stream from the network, likewise http:// udp:// tcp://;
                                rtmp://127.0.0.1:1935/live/x?listen waits for OBS to send one
  screen:  screen:,at=0x0,size=640x480   the screen, or a part of it
  synthetic:  synthetic:bars  synthetic:timecode  synthetic:48   test pictures
"""


def add_input_options(run: argparse.ArgumentParser) -> None:
    """Declare them."""
    run.add_argument(
        "-i", "--input", metavar="INPUT", help="video to restyle: a file, a camera... see below"
    )
    run.add_argument(
        "--prompts",
        metavar="FILE",
        help="prompts with times, a line each, as 0:10 a storm comes; - takes a new prompt from "
        "every line of standard input, at once",
    )
    run.add_argument(
        "--strength", type=float, metavar="S", help="0 to 1: how far -i may be left behind"
    )
    run.add_argument(
        "--fit",
        choices=("crop", "letterbox", "stretch"),
        help="how -i is brought to the size of the output; crop if left out",
    )
    run.add_argument("--mirror", action="store_true", help="swap left and right of -i")
    run.add_argument("--loop", action="store_true", help="play -i again and again")
    run.add_argument(
        "--realtime",
        action="store_true",
        help="play -i at its own pace and skip what comes too fast, as with a camera",
    )


def check_input_options(options: argparse.Namespace) -> None:
    """Raises ConfigError for options that need an input where there is none."""
    if options.input is not None:
        return
    for name in ("loop", "fit", "strength", "mirror", "realtime"):
        if name == "fit" and options.first is not None:
            continue  # it says how that picture is brought to size
        if getattr(options, name) not in (None, False):
            raise ConfigError(f"--{name} needs an input video; leave it out or give -i")


def prompts_of(options: argparse.Namespace) -> tuple[str, Sequence[TimedPrompt]]:
    """The first prompt, and those that come later by their times. Raises ConfigError."""
    from streamgen.serving.prompts import check_prompt
    from streamgen.serving.timeline import read_prompt_file

    timed: list[TimedPrompt] = []
    if options.prompts not in (None, STANDARD_INPUT):
        timed = read_prompt_file(Path(options.prompts))
    first = options.prompt
    if first is None:
        if not timed or timed[0].time_s > 0:
            raise ConfigError(
                "the following arguments are required: PROMPT; see streamgen run --help"
                if options.prompts is None
                else f"what to show at 0:00? give a PROMPT, or a line 0:00 in {options.prompts}"
            )
        first = timed.pop(0).prompt
    elif timed and timed[0].time_s == 0:
        raise ConfigError(f"{options.prompts} begins at 0:00, so the PROMPT is too much; leave one")
    check_prompt(first)
    return first, timed
