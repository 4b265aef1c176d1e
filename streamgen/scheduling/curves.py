"""Curves over the number of sessions as an SVG file: no package needed, any browser shows it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from streamgen.scheduling.simulate import Outcome

WIDTH, HEIGHT, MARGIN = 420, 260, 48  # of one panel, pixels
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito, for all eyes


def draw(sweep: Sequence[tuple[int, Sequence[Outcome]]], *, title: str) -> str:
    """SVG text: missed deadlines, p99 delay, sessions admitted, utilisation."""
    panels = (
        ("deadlines missed, %", [[100 * one.miss_share for one in row] for _, row in sweep]),
        ("p99 delay, s", [[one.p99_s for one in row] for _, row in sweep]),
        ("sessions admitted", [[float(one.num_admitted) for one in row] for _, row in sweep]),
        ("utilisation, %", [[100 * one.utilisation for one in row] for _, row in sweep]),
    )
    counts = [count for count, _ in sweep]
    names = [one.scheme for one in sweep[0][1]]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{2 * HEIGHT + 60}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="12" y="18" font-size="14">{escape(title)}</text>',
    ]
    for index, name in enumerate(names):
        x = 12 + 150 * index
        parts.append(
            f'<rect x="{x}" y="28" width="12" height="12" fill="{COLOURS[index % len(COLOURS)]}"/>'
            f'<text x="{x + 17}" y="38">{escape(name)}</text>'
        )
    for place, (label, rows) in enumerate(panels):
        left, top = WIDTH * (place % 2), 50 + HEIGHT * (place // 2)
        parts.append(f'<g transform="translate({left},{top})">{_panel(label, counts, rows)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(label: str, counts: Sequence[int], rows: Sequence[Sequence[float]]) -> str:
    highest = max([value for row in rows for value in row] + [1e-9])
    right, low = WIDTH - 16, HEIGHT - 36

    def at(count: int, value: float) -> str:
        span = max(1, counts[-1] - counts[0])
        x = MARGIN + (right - MARGIN) * (count - counts[0]) / span
        return f"{x:.1f},{low - (low - 24) * value / highest:.1f}"

    parts = [
        f'<text x="{MARGIN}" y="16">{escape(label)}</text>',
        f'<path d="M{MARGIN},24 V{low} H{right}" fill="none" stroke="#444"/>',
        f'<text x="{MARGIN - 6}" y="28" text-anchor="end">{highest:.3g}</text>',
        f'<text x="{MARGIN - 6}" y="{low}" text-anchor="end">0</text>',
        f'<text x="{MARGIN}" y="{low + 16}">{counts[0]}</text>',
        f'<text x="{right}" y="{low + 16}" text-anchor="end">{counts[-1]} sessions ask</text>',
    ]
    for index in reversed(range(len(rows[0]))):  # wide ones below, so that none hides another
        points = " ".join(at(count, row[index]) for count, row in zip(counts, rows, strict=True))
        colour = COLOURS[index % len(COLOURS)]
        line = f'fill="none" stroke="{colour}" stroke-width="{2 + 2 * index}"'
        parts.append(f'<polyline points="{points}" {line}/>')
    return "".join(parts)
