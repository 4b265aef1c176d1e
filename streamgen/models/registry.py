"""Model families by name; a family's code is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streamgen.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from streamgen.models.bundle import ModelBundle

    Loader = Callable[[str, torch.device, torch.dtype, range | None], ModelBundle]


def load_bundle(
    family: str,
    weights: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    blocks: range | None = None,
) -> ModelBundle:
    """Load a family's model, all of it in one file, from "package" or a path.

    `blocks` are those that the DiT is to have here; None: all.

    Raises ConfigError for an unknown family, CheckpointError for unusable weights.
    """
    if family not in _LOADERS:
        known = ", ".join(sorted({*_LOADERS, "wan"}))
        raise ConfigError(f"family = {family!r} is not known; known: {known}")
    return _LOADERS[family](weights, device, dtype, blocks)


def family_knowledge(family: str) -> str | None:
    """What a family's model in the package can draw; None where words know no bounds."""
    if family != "tiny":
        return None
    from streamgen.models.tiny.header import PACKAGE_WEIGHTS, read_header

    return read_header(PACKAGE_WEIGHTS).knowledge


def _load_tiny(
    weights: str, device: torch.device, dtype: torch.dtype, blocks: range | None
) -> ModelBundle:
    from streamgen.models.tiny.bundle import load_tiny

    return load_tiny(weights, device=device, dtype=dtype, blocks=blocks)


def _load_identity(
    weights: str, device: torch.device, dtype: torch.dtype, blocks: range | None
) -> ModelBundle:
    from streamgen.models.identity.bundle import load_identity  # which has none to leave out

    return load_identity(weights, device=device, dtype=dtype)


_LOADERS: dict[str, Loader] = {"identity": _load_identity, "tiny": _load_tiny}
