"""`streamgen replay`: a recorded stream once more, to the same frames."""

from __future__ import annotations

import argparse
import sys

from streamgen_apps.logs import begin_logging

EXAMPLES = """\
examples:
  streamgen run "a red ball bouncing" -i webcam: -o - --record evening.session | ffplay -
  streamgen replay evening.session                  # does it come out the same here?
  streamgen replay evening.session -o evening.mp4
"""
DIFFERS = 1  # exit code where frames are other than they were


def add_replay(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "replay",
        help="play a recorded stream again, to the same frames",
        description="Play what streamgen run --record wrote, and compare it frame by frame.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("recording", metavar="FILE", help="a file of --record")
    command.add_argument(
        "-o", "--output", action="append", metavar="OUTPUT", dest="outputs",
        help="where to, as of streamgen run; frames are only compared if left out",
    )  # fmt: skip
    command.add_argument("--zoom", type=int, default=1, metavar="N", help="enlarge N times")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change a setting of the recording, as model.device=cpu; may be given again",
    )  # fmt: skip
    command.set_defaults(command=_replay)


def _replay(options: argparse.Namespace) -> int:
    from streamgen.clock import MonotonicClock
    from streamgen.serving.interrupts import Interrupts
    from streamgen.serving.outputs import Outputs, check_outputs
    from streamgen.serving.playing import play
    from streamgen.serving.replay import Replay, recorded_picture

    begin_logging()
    clock = MonotonicClock()
    targets = options.outputs or ["null:"]
    size, fps = recorded_picture(options.recording, options.overrides)
    check_outputs(targets, size=size, fps=fps, clock=clock, zoom=options.zoom)
    with (
        Interrupts() as interrupts,
        Replay(options.recording, overrides=options.overrides, clock=clock) as replay,
    ):
        outputs = Outputs(
            targets,
            size=replay.picture_size,
            fps=replay.fps,
            clock=clock,
            metrics=replay.host.pipeline.metrics,
            zoom=options.zoom,
        )
        progress = play(replay, outputs, clock=clock, report=lambda _: None, whole=interrupts.held)
        likeness = replay.likeness
    told = f"{progress.num_frames} frames, {progress.video_s:.1f} s of video"
    if likeness.is_exact:
        print(f"streamgen: {told}, all as they were recorded", file=sys.stderr)
        return 0
    reasons = f" ({'; '.join(likeness.reasons)})" if likeness.reasons else ""
    if likeness.first_different is None:
        print(f"streamgen: {told}; nothing was recorded to compare them with", file=sys.stderr)
    else:
        print(
            f"streamgen: {told}; from frame {likeness.first_different} on they are not to the bit "
            f"as recorded{reasons}",
            file=sys.stderr,
        )
    return DIFFERS
