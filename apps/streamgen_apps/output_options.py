"""Where the video goes: -o, and what it takes."""

from __future__ import annotations

import argparse

OUTPUTS = """\

outputs (-o), as many at once as you give:
  film.mp4 .mov .mkv .webm .gif   a file; a .mp4 can be played even if this program is killed
  -  y4m:  raw:                   standard output, as Y4M or plain rgb24: ... -o - | ffplay -
  virtualcam:  virtualcam:/dev/video9,size=1280x720,fps=30   a camera for other programs
  mjpeg://127.0.0.1:8090          a page for browsers and OBS (browser or media source); so is
  whep://127.0.0.1:8091           this, by WebRTC; 0.0.0.0 instead makes up a token and tells it
  rtmp://host/live/key            a streaming server; likewise rtsp://host:8554/name and
                                  whip:https://host/whip/room (whip:https://TOKEN@host/...)
  udp://host:5000  tcp://host:5000  srt://host:5000   MPEG-TS; tcp://127.0.0.1:5000?listen waits
  folder/live.m3u8                an HLS playlist for a web server
  preview:                        a window (needs ffplay)
"""


def add_output_options(run: argparse.ArgumentParser) -> None:
    """Declare them."""
    run.add_argument(
        "-o",
        "--output",
        action="append",
        metavar="OUTPUT",
        dest="outputs",
        help="where to: a film, a camera, a server... see below; may be given again, for all at "
        "once; a new .mp4 named after the prompt if left out",
    )
    run.add_argument("--zoom", type=int, default=1, metavar="N", help="enlarge the output N times")
