"""Whether a picture divides into a model's patches, and which one would."""

from __future__ import annotations

import contextlib
from itertools import product

from streamgen.errors import ConfigError
from streamgen.models.bundle import ModelBundle
from streamgen.ops.rope import TokenGrid
from streamgen.types import PictureSize

MAX_PATCH = 8  # latents a side; no model's patch is larger


def token_grid(bundle: ModelBundle, height: int, width: int) -> TokenGrid:
    try:
        return bundle.dit.grid(height, width)
    except ValueError:
        stride = bundle.codec.facts.spatial_stride
        size = PictureSize(height * stride, width * stride)
        raise ConfigError(
            f"a picture of {size} pixels does not divide into the model's patches; "
            f"take {_next_size(bundle, height, width)}"
        ) from None


def _next_size(bundle: ModelBundle, height: int, width: int) -> PictureSize:
    """The smallest picture, of no fewer latents each way, that the model can cut into patches."""
    stride = bundle.codec.facts.spatial_stride
    for rows, columns in product(range(MAX_PATCH), repeat=2):
        with contextlib.suppress(ValueError):
            bundle.dit.grid(height + rows, width + columns)
            return PictureSize((height + rows) * stride, (width + columns) * stride)
    raise ValueError(f"the model takes no picture near {height}x{width} latents")
