"""StreamGen: real-time streaming video diffusion.

    from streamgen import Stream

`Stream`, `Host` and the parts below them are imported when they are first asked for, so that
importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamgen.serving.host import Host
    from streamgen.serving.stream import Stream

__all__ = ["Host", "Stream"]


def __getattr__(name: str) -> object:
    if name == "Stream":
        from streamgen.serving.stream import Stream

        return Stream
    if name == "Host":
        from streamgen.serving.host import Host

        return Host
    raise AttributeError(f"module 'streamgen' has no attribute {name!r}")
