"""Contact sheets: one clip a row, time to the right; what a row shows stands in a text beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streamgen.types import Pixels

NUM_COLUMNS = 8
GAP_PX = 3
PAPER = 255


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A clip and what was asked for."""

    text: str
    clip: Pixels


def write_sheet(folder: Path | None, name: str, rows: Sequence[Row]) -> None:
    """Write NAME.png and NAME.txt, a line a row; nothing without a folder or rows."""
    if folder is None or not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    sheet = np.concatenate([_strip(row.clip) for row in rows])
    ok, encoded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"OpenCV could not encode a sheet of {list(sheet.shape)}")
    (folder / f"{name}.png").write_bytes(encoded.tobytes())
    lines = [f"{number:2d}  {row.text}" for number, row in enumerate(rows, start=1)]
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _strip(clip: Pixels) -> Pixels:
    """Frames at equal distances in time, first and last included, side by side."""
    picks = np.linspace(0, len(clip) - 1, NUM_COLUMNS).round().astype(int)
    pad = ((0, GAP_PX), (0, GAP_PX), (0, 0))
    return np.concatenate(
        [np.pad(clip[pick], pad, constant_values=PAPER) for pick in picks], axis=1
    )
