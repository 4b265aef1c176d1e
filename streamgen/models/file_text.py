"""Text that comes out of a file and goes into a message: one line, printable, not long."""

from __future__ import annotations

from pathlib import Path

from streamgen.errors import CheckpointError

MAX_KEY_LENGTH = 256  # characters; the longest published name has about 100
MAX_REASON_LENGTH = 160


def checked_key(path: Path, key: object) -> str:
    """The key of a tensor as it is; CheckpointError unless it is a printable name."""
    if isinstance(key, str) and key.isprintable() and 0 < len(key) <= MAX_KEY_LENGTH:
        return key
    raise CheckpointError(
        f"{path}: the key {ascii(key)[:MAX_REASON_LENGTH]} is not a parameter's name; the file is "
        f"damaged or not a state dict: download or copy it again"
    )


def reason_of(error: Exception) -> str:
    """What an error of another library says, on one line and without control characters."""
    line = " ".join(str(error).split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in line)
    return f"{type(error).__name__}: {printable}"[:MAX_REASON_LENGTH]
