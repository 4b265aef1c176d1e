"""Options of `streamgen serve`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from streamgen_apps.gpu_options import add_gpu_options

EXAMPLES = """\

examples:
  streamgen serve                                    # one engine, this machine only
  streamgen serve --host 0.0.0.0 --token-file secret # for others, who need the token
  streamgen serve --replicas 2                       # two engines behind one address
  streamgen serve --ray --replicas 1 --max-replicas 8 --ray-gpus --preset self-forcing-1.3b

docs/api.md says how programs talk to it, docs/deploy.md how to keep it running
"""


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """What the page and the server for programs have in common: the same server behind both."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 127.0.0.1")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="0 takes a free one")
    parser.add_argument(
        "--token", metavar="SECRET", help="what others must know; made if --host is not local"
    )
    parser.add_argument(
        "--https", action="store_true", help="with a certificate of its own, for phones' cameras"
    )
    parser.add_argument("--certificate", metavar="FILE", help="PEM certificate for HTTPS")
    parser.add_argument("--key", metavar="FILE", help="PEM key of the certificate")
    parser.add_argument(
        "--max-sessions", type=int, metavar="N", help="of each engine; others wait in line"
    )
    add_gpu_options(parser, what="each model")
    parser.add_argument(
        "--preset",
        action="append",
        metavar="NAME",
        help="a preset's name or a .toml file; may be given again; the tiny ones if left out",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting of every preset, as engine.sessions=8; may be given again",
    )


def add_serve_options(
    parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]
) -> None:
    add_server_options(parser)
    parser.add_argument("--token-file", metavar="FILE", help="a file with the token in it")
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="how long streams may go on after SIGTERM, which lets no new ones begin; 30",
    )
    parser.add_argument(
        "--replicas", type=int, metavar="N", help="so many engines, each a process of its own"
    )
    parser.add_argument("--ray", action="store_true", help="replicas are placed by Ray Serve")
    parser.add_argument(
        "--max-replicas", type=int, metavar="N", help="with --ray: as many where sessions need them"
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="with --ray: of a cluster; auto finds this one's"
    )
    parser.add_argument(
        "--ray-gpus", action="store_true", help="with --ray: each replica takes --gpus GPUs"
    )
    parser.add_argument("--replica", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(command=command)
