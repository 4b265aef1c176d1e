"""TOML -> settings: presets by name, files by path, `cache.sinks=2` on top of either.

Presets are the files of `configs/` in a clone; a wheel carries them as `streamgen/presets`.
"""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from streamgen.config.reader import read_dataclass
from streamgen.config.schema import StreamConfig, Task
from streamgen.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class PresetInfo:
    """What a list of presets shows."""

    name: str
    description: str
    task: Task
    family: str


def load_preset(name: str, overrides: Sequence[str] = ()) -> StreamConfig:
    """The preset `name` with `overrides` such as "cache.sinks=2"; the last one of a key wins."""
    presets = _preset_files()
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=1, cutoff=0.4)
        remedy = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no preset {name!r}; {remedy}`streamgen presets` lists all")
    return load_file(presets[name], overrides)


def load_file(path: Path, overrides: Sequence[str] = ()) -> StreamConfig:
    """The settings in a TOML file, with `overrides` as in `load_preset`."""
    table = _read_toml(path)
    for override in overrides:
        _apply(override, table)
    origin = f"{path.name} with --set" if overrides else path.name
    return read_dataclass(StreamConfig, table, origin=origin)


def load_table(
    table: Mapping[str, object], overrides: Sequence[str] = (), *, origin: str
) -> StreamConfig:
    """Settings out of nested tables of plain values, as `settings_of` gives them."""
    changed = copy.deepcopy(dict(table))
    for override in overrides:
        _apply(override, changed)
    return read_dataclass(StreamConfig, changed, origin=origin)


def settings_of(config: StreamConfig) -> dict[str, object]:
    """Settings as nested tables of plain values; sections that were left out stay out."""
    return _without_none(asdict(config))


def list_presets() -> tuple[PresetInfo, ...]:
    """All presets, by name. Each is read in full, so that a broken one is an error here too."""
    infos: list[PresetInfo] = []
    for name, path in _preset_files().items():
        config = load_file(path)
        infos.append(PresetInfo(name, config.description, config.task, config.family))
    return tuple(infos)


def _without_none(table: Mapping[str, object]) -> dict[str, object]:
    return {
        key: _without_none(cast("dict[str, object]", value)) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def _preset_files() -> dict[str, Path]:
    folder = _PACKAGE / "presets"
    if not folder.is_dir():
        folder = _PACKAGE.parent / "configs"
    files = {path.stem: path for path in folder.glob("*.toml")}
    if not files:
        raise ConfigError(f"no presets in {folder}; reinstall streamgen, or name a file")
    return dict(sorted(files.items()))


def _read_toml(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; correct that line") from error


def _apply(override: str, table: dict[str, object]) -> None:
    """Put one `section.key=value` into `table`; whether the key exists, the reader finds out."""
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r} is not section.key=value; write cache.sinks=2")
    section = table
    for depth, part in enumerate(parts[:-1], start=1):
        inner = section.setdefault(part, {})
        if not isinstance(inner, dict):
            name = ".".join(parts[:depth])
            raise ConfigError(f"--set {override!r}: {name} is a value, not a section; set {name}")
        section = cast("dict[str, object]", inner)
    section[parts[-1]] = _parse_value(text.strip())


def _parse_value(text: str) -> object:
    """A TOML value, or the text itself as a bare string."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # an integer of 5,000 digits, brackets 5,000 deep
        return text
    return table["value"] if len(table) == 1 else text
