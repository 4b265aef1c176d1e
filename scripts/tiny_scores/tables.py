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
    parts = [*_scores(results), *_drift(results), *_switch(results), *_restyle(results)]
    return "\n\n".join(parts)


def _scores(results: Results) -> Iterable[str]:
    steps = sorted(results.parts.get("scores", {}), key=int, reverse=True)
    for kind, names in NAMES.items():
        bounds = results.entry("bounds", kind)
        if not steps and bounds is None:
            continue
        head = [f"{kind} prompts"]
        head += [text for step in steps for text in (f"{step} steps", "shuffled")]
        head += ["codec", "truth", "truth shuffled"]
        rows = [head]
        for name in names:
            row = [name]
            for step in steps:
                for control in ("prompt", "shuffled"):
                    row.append(share_text(results.entry("scores", step, kind, control, name)))
            for bound, control in (("codec", "prompt"), ("truth", "prompt"), ("truth", "shuffled")):
                row.append(share_text(results.entry("bounds", kind, bound, control, name)))
            rows.append(row)
        yield aligned(rows)


def _drift(results: Results) -> Iterable[str]:
    looks, shares = [], []
    for name in results.parts.get("drift", {}):
        for when in ("first", "last", "truth through the codec"):
            look = results.entry("drift", name, "look", when)
            if look is None:
                continue
            if not looks:
                looks.append(["drift", "frames", *look])
            if when != "truth through the codec" or len(looks) == 1 + 2:
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
    head = ["switch", "median wait", "shown", "old before", "new before (chance)",
            "new at end", "old at end"]  # fmt: skip
    keys = ("shown", "old_before", "new_before", "new_at_end", "old_at_end")
    rows = [head]
    for name in results.parts.get("switch", {}):
        found = results.entry("switch", name) or {}
        shares = [share_text(_facts(found.get(key))) for key in keys]
        rows.append([name, _number(found.get("median_wait")), *shares])
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
