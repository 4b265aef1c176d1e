"""The `streamgen` command. Imports nothing heavy before it knows what to do."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from streamgen.errors import ConfigError, StreamGenError
from streamgen_apps.bench_options import add_bench_options
from streamgen_apps.gpu_options import add_gpu_options
from streamgen_apps.input_options import INPUTS, add_input_options
from streamgen_apps.models import add_models
from streamgen_apps.output_options import OUTPUTS, add_output_options
from streamgen_apps.plan_options import add_plan_options, check_no_plan
from streamgen_apps.replay import add_replay
from streamgen_apps.serve_options import EXAMPLES as SERVE_EXAMPLES
from streamgen_apps.serve_options import add_serve_options, add_server_options
from streamgen_apps.simulate import add_simulate
from streamgen_apps.watch_options import add_watch_options

STANDARD_OUTPUT = 1  # file descriptor
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it: 128 + SIGINT

RUN_EXAMPLES = """\

examples:
  streamgen run "a red ball bouncing over a green field at night" -o night.mp4 --seconds 10
  streamgen run "a pencil sketch" -i holiday.mp4 -o sketch.mp4
  streamgen run "a blue star over the sea" -o - | ffplay -
  streamgen run "a watercolour" -i webcam: -o - | ffplay -
  streamgen run "neon rain" -i webcam: -o virtualcam: -o rtmp://host/live/key -o kept.mp4
  streamgen run --prompts story.txt -o story.mp4 --seconds 60

while it runs on a terminal, a line that you type is the next prompt; /help says what else there is
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn what went wrong into one line and an exit code."""
    try:
        options = _parser().parse_args(arguments)
        code: int = options.command(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except StreamGenError as error:
        print("streamgen:", " ".join(str(error).splitlines()), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `streamgen presets | head -1`: nobody wants the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
        return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="streamgen", description="Real-time streaming video diffusion.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_webcam(commands)
    server = commands.add_parser(
        "serve",
        help="live streams for programs, by one engine or several",
        description="Serve live streams over HTTP and WebSocket.",
        epilog=SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_serve_options(server, _serve)
    _add_bench(commands)
    add_models(commands)
    doctor = commands.add_parser(
        "doctor", help="what this machine has, what is missing, and the command that mends it"
    )
    doctor.add_argument("--json", action="store_true", help="for a program to read")
    add_plan_options(doctor)
    doctor.set_defaults(command=_doctor)
    add_replay(commands)
    add_simulate(commands)
    presets = commands.add_parser("presets", help="list the presets and what they are for")
    presets.set_defaults(command=_presets)
    return parser


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    run = commands.add_parser(
        "run",
        help="make an endless video from words, or restyle one",
        description="Make a video that follows the words of PROMPT, or restyle the one of -i.",
        epilog=INPUTS + OUTPUTS + RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument(
        "prompt", metavar="PROMPT", nargs="?", help="what to show, or the style to give"
    )
    add_input_options(run)
    begin = run.add_mutually_exclusive_group()
    begin.add_argument(
        "--first", metavar="FILE", help="picture or short clip that text-to-video begins with"
    )
    begin.add_argument(
        "--resume", metavar="FILE", help="go on where the stream of --save was (text-to-video)"
    )
    run.add_argument(
        "--save", metavar="FILE", help="at the end, write where the stream is, for --resume"
    )
    add_output_options(run)
    add_watch_options(run)
    length = run.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds of video")
    length.add_argument("--frames", type=int, metavar="N", help="stop after N frames")
    run.add_argument("--preset", metavar="NAME", help="a preset's name or a .toml file")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting of the preset, as cache.sinks=2; may be given again",
    )
    add_gpu_options(run)
    run.add_argument("--seed", type=int, metavar="N", help="same seed, same video")
    run.set_defaults(command=_run)


def _add_webcam(commands: argparse._SubParsersAction[_Parser]) -> None:
    page = commands.add_parser(
        "webcam",
        help="a page that restyles your camera while it runs",
        description="Serve a page that restyles the visitor's camera, or draws from words.",
        allow_abbrev=False,
    )
    add_server_options(page)
    page.set_defaults(command=_webcam)


def _webcam(options: argparse.Namespace) -> int:
    from streamgen_apps.webcam import webcam

    return webcam(options)


def _serve(options: argparse.Namespace) -> int:
    from streamgen_apps.serve import serve

    return serve(options)


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="measure how fast a preset runs here",
        description="Measure a preset: frames/s, ticks, first frame, memory, share of the limit.",
        allow_abbrev=False,
    )
    add_bench_options(bench)
    bench.set_defaults(command=_bench)


def _bench(options: argparse.Namespace) -> int:
    from streamgen_apps.bench import bench

    return bench(options)


def _run(options: argparse.Namespace) -> int:
    from streamgen_apps.run import run

    return run(options)


def _doctor(options: argparse.Namespace) -> int:
    from streamgen_apps.doctor import divide, doctor

    if options.gpus is not None:
        return divide(options)
    check_no_plan(options)
    return doctor(as_json=options.json)


def _presets(options: argparse.Namespace) -> int:
    from streamgen_apps.presets import print_presets

    return print_presets()


if __name__ == "__main__":
    sys.exit(main())
