"""What a stream may be asked for in numbers; known before any model is loaded."""

from __future__ import annotations

from streamgen.errors import ConfigError


def check_seed(seed: int) -> None:
    """Raises ConfigError for a seed that noise cannot be made from."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed {seed} is not in 0 to 2**63 - 1; choose another")


def check_strength(strength: float) -> None:
    """Raises ConfigError for a share by which an input cannot be left behind."""
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength {strength:g} is not in 0 to 1; choose one that is")
