"""Everything that StreamGen raises on a user's mistake or a failure of the outside world.

    StreamGenError                exit code 3 in the programs
    |-- ConfigError               a setting, a preset or a prompt is wrong (exit code 2)
    |-- CheckpointError           a weights file is missing, damaged or of another shape
    |-- CapacityError             memory or cache rows do not suffice
    |-- SourceError               an input cannot be opened or read
    |-- SinkError                 an output cannot be opened or written
    |-- RankLostError             a process of the group died or hangs
    |-- RefusedError              a server said no (streamgen.client)
    `-- ConnectionLostError       a server cannot be reached any more (streamgen.client)

Each message is one line that says what is wrong, with both numbers where there are two, and what
to do. A programmer's mistake is a ValueError or an assertion, never one of these.
"""

from __future__ import annotations


class StreamGenError(Exception):
    """Base class: catch it to catch all that StreamGen raises on purpose."""

    exit_code = 3


class ConfigError(StreamGenError):
    """A setting, a preset, a prompt or a combination of them cannot work."""

    exit_code = 2


class CheckpointError(StreamGenError):
    """A weights file is missing, truncated, corrupt or does not fit the model."""


class CapacityError(StreamGenError):
    """What was asked for does not fit into the memory, the cache rows or the time that there are.

    `retry_in_s` says when it may fit, where that can be told; infinite if it never will.
    """

    def __init__(self, message: str, *, retry_in_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_in_s = retry_in_s


class SourceError(StreamGenError):
    """An input (camera, file, network) cannot be opened or read."""


class SinkError(StreamGenError):
    """An output (file, camera, network) cannot be opened or written."""


class RankLostError(StreamGenError):
    """A process of the group died, hangs or cannot be reached."""


class RefusedError(StreamGenError):
    """A server said no; `retryable` if the same may work later, after `retry_after_s` if known."""

    def __init__(
        self, message: str, *, retryable: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class ConnectionLostError(StreamGenError):
    """A server cannot be reached, or ended the connection."""
