"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamgen.metrics.json_value import Json
from tiny_scores.attributes import NAMES
from tiny_scores.prompts import CONTENT
from tiny_scores.results import Facts, Results

MISSING = "-"


def tables(results: Results) -> str:
    """All parts that were measured."""
    parts = [
        *_codec(results),
        *_scores(results),
        *_drift(results),
        *_switch(results),
        *_scenes(results),
        *_first(results),
        *_restyle(results),
    ]
    return "\n\n".join(parts)


def _codec(results: Results) -> Iterable[str]:
    rows = [["codec", "PSNR dB", "clips"]]
    for kind in results.parts.get("codec", {}):
        found = results.entry("codec", kind) or {}
        num_clips = len(_facts(found.get("psnr_db_by_clip")) or {})
        rows.append([kind, _number(found.get("psnr_db")), str(num_clips)])
    if len(rows) > 1:
        yield aligned(rows)


def _scores(results: Results) -> Iterable[str]:
    steps = sorted(results.parts.get("scores", {}), key=int, reverse=True)
    for kind, names in NAMES.items():
        if steps or results.entry("bounds", kind) is not None:
            yield aligned(_score_rows(results, kind, names, steps))
    for kind, names in NAMES.items():
        if any(results.entry("scores", step, f"{kind}, start") for step in steps):
            yield aligned(_start_rows(results, kind, names, steps))


def _score_rows(
    results: Results, kind: str, names: Sequence[str], steps: Sequence[str]
) -> list[list[str]]:
    head = [f"{kind} prompts"]
    head += [text for step in steps for text in (f"{step} steps", "shuffled")]
    rows = [[*head, "codec", "truth", "truth shuffled"]]
    for name in names:
        row = [name]
        for step in steps:
            for control in ("prompt", "shuffled"):
                row.append(share_text(results.entry("scores", step, kind, control, name)))
        for bound, control in (("codec", "prompt"), ("truth", "prompt"), ("truth", "shuffled")):
            row.append(share_text(results.entry("bounds", kind, bound, control, name)))
        rows.append(row)
    return rows


def _start_rows(
    results: Results, kind: str, names: Sequence[str], steps: Sequence[str]
) -> list[list[str]]:
    rows = [[f"{kind} prompts, first frames", *(f"{step} steps" for step in steps)]]
    for name in names:
        found = [results.entry("scores", step, f"{kind}, start", "prompt", name) for step in steps]
        if name != "motion":
            rows.append([name, *map(share_text, found)])
    return rows


def _drift(results: Results) -> Iterable[str]:
    looks, shares = [], []
    for number, name in enumerate(results.parts.get("drift", {})):
        truth = ("truth through the codec",) if number == 0 else ()  # the same for all
        for when in (*truth, "first", "last"):
            look = results.entry("drift", name, "look", when) or {}
            if not looks:
                looks.append(["drift", "frames", *look])
            looks.append([name, when, *(_number(value) for value in look.values())])
        for when in ("early", "late"):
            for control in ("prompt", "shuffled"):
                found = results.entry("drift", name, when, control)
                if found is not None:
                    row = [share_text(_facts(found.get(attribute))) for attribute in CONTENT]
                    shares.append([name, f"{when}, {control}", *row])
    if looks:
        yield aligned(looks)
        yield aligned([["drift", "window", *CONTENT], *shares])


def _switch(results: Results) -> Iterable[str]:
    head = ["switch", "median wait", "shown", "shown without a change", "old before", "new before",
            "new at end", "old at end"]  # fmt: skip
    keys = ("shown", "shown_unchanged", "old_before", "new_before", "new_at_end", "old_at_end")
    rows = [head]
    for name in results.parts.get("switch", {}):
        found = results.entry("switch", name) or {}
        shares = [share_text(_facts(found.get(key))) for key in keys]
        rows.append([name, _number(found.get("median_wait")), *shares])
    if len(rows) > 1:
        yield aligned(rows)


def _scenes(results: Results) -> Iterable[str]:
    found = results.entry("scenes", "all")
    if found is not None:
        rows = [["at the end, after another scene", *CONTENT]]
        for control in ("at_end", "at_end_shuffled"):
            shares = _facts(found[control]) or {}
            rows.append([control, *(share_text(_facts(shares[name])) for name in CONTENT)])
        yield aligned(rows)


def _first(results: Results) -> Iterable[str]:
    rows = [["first picture, motion named alone", *CONTENT]]
    for name in results.parts.get("first", {}):
        for control in ("prompt", "shuffled"):
            found = results.entry("first", name, control) or {}
            row = [share_text(_facts(found.get(attribute))) for attribute in CONTENT]
            rows.append([f"{name}, {control}", *row])
    if len(rows) > 1:
        yield aligned(rows)


def _restyle(results: Results) -> Iterable[str]:
    found = results.entry("restyle", "all")
    if found is None:
        return
    strengths = _facts(found["strengths"]) or {}
    named = [(f"strength {name}", _facts(value)) for name, value in strengths.items()]
    named += [(name, _facts(found[name])) for name in ("codec", "truth", "do nothing")]
    shares = ("style", "style_shuffled", "nearest")
    numbers = ("psnr_db", "edges", "stranger_edges", "distinctness")
    rows = [["restyle", *shares, *numbers]]
    for name, one in named:
        if one is not None:
            row = [share_text(_facts(one[key])) for key in shares]
            rows.append([name, *row, *(_number(one[key]) for key in numbers)])
    yield aligned(rows)


def share_text(share: Facts | None) -> str:
    """ ".57 [.50-.63] 200": the share, its interval, the number of samples."""
    if share is None or not isinstance(share.get("share"), float | int):
        return MISSING
    value, low, high = (f"{share[key]:.2f}" for key in ("share", "low", "high"))
    return f"{value} [{low}-{high}] {share['samples']}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest entry."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _facts(value: Json) -> Facts | None:
    return value if isinstance(value, dict) else None


def _number(value: Json) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else MISSING
