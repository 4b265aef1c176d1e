"""Files beside the one that they are to replace, so that what is there stays until that is whole.

`night.partial.mp4` for `night.mp4`. Whoever made one writes, closes, and puts it in its place with
`os.replace`; a process that is killed leaves it, under that name.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import BinaryIO


def created_beside(place: Path) -> tuple[Path, BinaryIO]:
    """A new, empty, unbuffered file next to `place`; what other runs left there is not touched.

    Raises OSError if none can be made.
    """
    for number in count(1):
        partial = partial_of(place, number)
        try:
            return partial, partial.open("xb", buffering=0)
        except FileExistsError:
            continue
    raise AssertionError("count() has no end")


def partial_of(place: Path, number: int) -> Path:
    """The name of the `number`th file beside `place`, from 1 on."""
    ordinal = "" if number == 1 else f"-{number}"
    return place.with_name(f"{place.stem}.partial{ordinal}{place.suffix}")
