"""Video to video: is the style the one that was asked for, and is the input still there?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from streamgen.metrics.json_value import Json
from streamgen.types import Pixels
from tiny_scores.pictures import edge_agreement, psnr_db, rms_difference
from tiny_scores.prompts import STYLE_NAMES
from tiny_scores.shares import Share
from tiny_scores.sheets import Row, write_sheet
from tiny_scores.streams import VIDEO_PRESET, Order, Setup, collect_clips, through_codec
from tiny_world.style_scorer import classify_style
from tiny_world.styles import apply_style, style_phrase

STRENGTHS = (0.1, 0.4, 0.7, 1.0)
SEED = 1

logger = logging.getLogger(__name__)

Styled = dict[tuple[str, str], Pixels]
"""Clips by (name of the input, style)."""


def measure_restyling(
    setup: Setup, clips: Mapping[str, Pixels], *, sheets: Path | None
) -> dict[str, Json]:
    """Every clip in every style at four strengths, beside doing nothing and the true style.

    Style: share of clips in which the style scorer names the style asked for; `shuffled` asks
    for another one. PSNR: against the input in its true style; `nearest` is the share of clips
    that are closer to the true style asked for than to any other. Edges: agreement with the
    input; `stranger_edges` with another input. Distinctness: mean RMS difference between
    outputs of two styles, in grey levels.
    """
    truths = {
        (name, style): apply_style(clip, style)
        for name, clip in clips.items()
        for style in STYLE_NAMES
    }
    outputs: dict[float, Styled] = {}
    with setup.host(VIDEO_PRESET) as host:
        decoded = {key: through_codec(host, truth) for key, truth in truths.items()}
        for strength in STRENGTHS:
            orders = [
                Order(style_phrase(style), SEED, clip=clips[name], strength=strength)
                for name, style in truths
            ]
            outputs[strength] = dict(zip(truths, collect_clips(host, orders), strict=True))
            logger.info("restyle: strength %.1f done", strength)
    _write_sheets(clips, outputs, sheets)
    unchanged = {(name, style): clips[name] for name, style in truths}
    return {
        "clips": list(clips),
        "frames": min(len(clip) for clip in clips.values()),
        "do nothing": _measure(unchanged, clips, truths),
        "truth": _measure(truths, clips, truths),
        "codec": _measure(decoded, clips, truths),
        "strengths": {
            f"{strength:g}": _measure(styled, clips, truths) for strength, styled in outputs.items()
        },
    }


def _measure(styled: Styled, clips: Mapping[str, Pixels], truths: Styled) -> dict[str, Json]:
    seen = {key: classify_style(clip) for key, clip in styled.items()}
    names = list(clips)
    after = dict(zip(STYLE_NAMES, (*STYLE_NAMES[1:], STYLE_NAMES[0]), strict=True))
    next_clip = dict(zip(names, (*names[1:], names[0]), strict=True))
    hits = {style: sum(seen[name, style] == style for name in names) for style in STYLE_NAMES}
    return {
        "style": Share(sum(hits.values()), len(seen)).to_json(),
        "style_shuffled": Share(
            sum(one == after[style] for (_, style), one in seen.items()), len(seen)
        ).to_json(),
        "by_style": {style: Share(hits[style], len(names)).to_json() for style in STYLE_NAMES},
        "nearest": Share(sum(_is_nearest(styled, truths, key) for key in styled), len(styled))
        .to_json(),
        "psnr_db": _mean([psnr_db(_cut(truths[key], clip), clip) for key, clip in styled.items()]),
        "psnr_db_by_style": {
            style: _mean([
                psnr_db(_cut(truths[name, style], styled[name, style]), styled[name, style])
                for name in names
            ])
            for style in STYLE_NAMES
        },
        "edges": _mean(_edges(styled, clips, {name: name for name in names})),
        "edges_by_clip": {
            name: _mean(_edges(
                {key: clip for key, clip in styled.items() if key[0] == name}, clips, {name: name}
            ))
            for name in names
        },
        "stranger_edges": _mean(_edges(styled, clips, next_clip)),
        "distinctness": _mean([
            rms_difference(styled[name, one], styled[name, other])
            for name in names
            for one, other in combinations(STYLE_NAMES, 2)
        ]),
    }  # fmt: skip


def _edges(styled: Styled, clips: Mapping[str, Pixels], compared: Mapping[str, str]) -> list[float]:
    """Edge agreement of every second frame with the clip that its own is compared to."""
    scores = []
    for (name, _), clip in styled.items():
        other = clips[compared[name]]
        length = min(len(clip), len(other))
        scores.append(edge_agreement(other[:length:2], clip[:length:2]))
    return scores


def _is_nearest(styled: Styled, truths: Styled, key: tuple[str, str]) -> bool:
    name, wanted = key
    distances = {
        style: rms_difference(_cut(truths[name, style], styled[key]), styled[key])
        for style in STYLE_NAMES
    }
    return min(distances, key=distances.__getitem__) == wanted


def _cut(clip: Pixels, like: Pixels) -> Pixels:
    return clip[: len(like)]


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def _write_sheets(
    clips: Mapping[str, Pixels], outputs: Mapping[float, Styled], sheets: Path | None
) -> None:
    for name, clip in clips.items():
        rows = [Row("input", clip)]
        for style in STYLE_NAMES:
            rows += [
                Row(f"{style_phrase(style)}, strength {strength:g}", styled[name, style])
                for strength, styled in outputs.items()
            ]
        write_sheet(sheets, f"restyle-{name}", rows)
