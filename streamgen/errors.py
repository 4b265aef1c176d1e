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

import re


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


def install_command(extra: str) -> str:
    """The command that installs what an extra of this package names, for an error's remedy.

    It names the packages themselves, as the metadata of this installation lists them: that is right
    beside a clone and far from one. Without metadata the program runs from its clone.
    """
    import importlib.metadata  # a tenth of a second, for those who see an error only

    try:
        listed = importlib.metadata.requires("streamgen") or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    packages = _packages_of(extra, listed)
    return f"pip install {' '.join(packages)}" if packages else f'pip install ".[{extra}]"'


def _packages_of(extra: str, listed: list[str]) -> list[str]:
    """Requirements of an extra, quoted for a shell; extras that it includes are followed."""
    packages: list[str] = []
    for line in listed:
        requirement, _, marker = line.partition(";")
        if not re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", marker):
            continue
        included = re.fullmatch(r"streamgen\[(.+)\]", requirement.strip())
        more = _packages_of(included[1], listed) if included else [f'"{requirement.strip()}"']
        packages += [package for package in more if package not in packages]
    return packages
