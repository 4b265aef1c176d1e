"""What the programs tell of their work on stderr, by the environment variable STREAMGEN_LOG."""

from __future__ import annotations

import logging
import os

from streamgen.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")


def begin_logging() -> None:
    """Warnings by default; "info" also says what was chosen at start, "debug" each decision.

    Raises ConfigError if STREAMGEN_LOG is something else.
    """
    logging.basicConfig(format="streamgen: %(message)s", level=logging.WARNING)
    wanted = os.environ.get("STREAMGEN_LOG")
    if wanted is None:
        return
    if wanted.lower() not in LEVELS:
        raise ConfigError(f'STREAMGEN_LOG = "{wanted}" is none of {", ".join(LEVELS)}; unset it')
    logging.getLogger("streamgen").setLevel(wanted.upper())
