"""The JSON file of an evaluation: parts of one model, which can be measured on different days."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import cast

from streamgen.metrics.json_value import Json

logger = logging.getLogger(__name__)

Facts = dict[str, Json]


class Results:
    """Parts by name, written after each; parts of another model or other settings are dropped."""

    def __init__(self, path: Path, facts: Facts) -> None:
        """`facts` say what all parts have in common, as the hash of the weights."""
        self._path = path
        self.facts = facts
        self.parts: dict[str, Facts] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        stored = json.loads(self._path.read_text(encoding="utf-8"))
        if stored.get("facts") == self.facts:
            self.parts = stored["parts"]
        else:
            logger.warning("%s is of another model or other settings; starting anew", self._path)

    def put(self, part: str, name: str, value: Facts) -> None:
        """Keep one entry of a part, and write the file, whole or not at all."""
        self.parts.setdefault(part, {})[name] = value
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        text = json.dumps({"facts": self.facts, "parts": self.parts}, indent=1)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(self._path)

    def entry(self, part: str, *keys: str) -> Facts | None:
        """What stands under the keys of a part; None if it has not been measured."""
        here: Json = cast("Json", self.parts.get(part))
        for key in keys:
            if not isinstance(here, dict):
                return None
            here = here.get(key)
        return here if isinstance(here, dict) else None
