"""What the codec alone leaves of a picture: no model behind it could show more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streamgen.serving.host import Host
from streamgen.types import Pixels
from tiny_scores.pictures import psnr_db
from tiny_scores.results import Facts
from tiny_scores.streams import VIDEO_PRESET, Setup, through_codec


def measure_codec(setup: Setup, kinds: Mapping[str, Mapping[str, Pixels]]) -> dict[str, Facts]:
    """PSNR in dB of every clip through the codec, and each kind's mean over its clips."""
    found: dict[str, Facts] = {}
    with setup.host(VIDEO_PRESET) as host:
        for kind, clips in kinds.items():
            by_clip = {name: _psnr_db(host, clip) for name, clip in clips.items()}
            found[kind] = {
                "psnr_db": round(float(np.mean(list(by_clip.values()))), 2),
                "psnr_db_by_clip": dict(by_clip),
            }
    return found


def _psnr_db(host: Host, clip: Pixels) -> float:
    decoded = through_codec(host, clip)
    return round(psnr_db(clip[: len(decoded)], decoded), 2)
