"""The words after -i and -o: a scheme and what follows it, or a path.

Knows no sources and no sinks; their tables are in streamgen.media.opening and .outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from streamgen.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)  # two letters: C: is a drive


def split_spec(
    option: str, spec: str, schemes: Iterable[str], *, others: tuple[str, ...]
) -> tuple[str | None, str]:
    """The scheme of `spec` and what follows it; no scheme if it is a path or a dash.

    Raises ConfigError if `spec` is empty or its scheme is not one of `schemes`; `others` is what
    else may be written.
    """
    if not spec.strip():
        raise ConfigError(f"{option} is empty; known: {listed(schemes, others)}")
    match = _SCHEME.fullmatch(spec)
    if match is None:
        return None, spec
    scheme = match[1].lower()
    if scheme not in schemes:
        raise ConfigError(
            f"{option} {spec}: there is no {scheme}:, known: {listed(schemes, others)}; "
            f"for a file of that name write ./{spec}"
        )
    return scheme, match[2]


def listed(schemes: Iterable[str], others: tuple[str, ...]) -> str:
    """All that may be written, for a message."""
    return ", ".join([*(f"{scheme}:" for scheme in schemes), *others])


def path_of(spec: str) -> Path:
    return Path(spec).expanduser()


def nothing_after(scheme: str, rest: str) -> None:
    """Raises ConfigError if something follows a scheme that stands alone."""
    if rest:
        raise ConfigError(f"{scheme}: takes nothing after the colon, so not {rest!r}; leave it out")
