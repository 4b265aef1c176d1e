"""`streamgen presets`: names, tasks, and what the models behind them can draw."""

from __future__ import annotations

import textwrap

from streamgen.config.load import list_presets
from streamgen.serving.knowledge import knowledge_of


def print_presets() -> int:
    """Print every preset; returns the exit code."""
    width = max(len(preset.name) for preset in list_presets())
    for preset in list_presets():
        print(f"{preset.name:<{width}} {preset.task:<15} {preset.description}")
    for family in sorted({preset.family for preset in list_presets()}):
        knowledge = knowledge_of(family)
        if knowledge:
            print()
            print(textwrap.fill(f"{family}: {knowledge}", width=100))
    return 0
