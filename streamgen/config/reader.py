"""A strict reader: nested tables of plain values -> nested dataclasses.

Knows str, int, float, bool, Literal, tuple[X, ...], dataclasses of those and sections that may be
left out (X | None), and no particular settings. Nothing is converted but an integer to a float;
nothing is ignored. Complaints are ConfigErrors of one line that begin with the origin (a file name)
and the dotted key.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Literal, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints

from streamgen.errors import ConfigError

T = TypeVar("T")

_TOML_NAMES: dict[type[object], str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "float",
    list: "array",
    dict: "section",
}


def read_dataclass(kind: type[T], table: Mapping[str, object], *, origin: str) -> T:
    """Build `kind` from `table`; raises ConfigError on an unknown, missing or mistyped key.

    What `kind` itself raises in `__post_init__` as ConfigError is passed on with the origin.
    """
    return _Reader(origin, tuple(dotted_keys(kind))).table(kind, table, prefix="")


def dotted_keys(kind: type[object], prefix: str = "") -> Iterator[str]:
    """All keys that a table of `kind` may have, sections before what is in them."""
    hints = get_type_hints(kind)
    for field in _fields(kind):
        yield prefix + field.name
        hint = _given(hints[field.name])
        if _is_section(hint):
            yield from dotted_keys(hint, f"{prefix}{field.name}.")


def nearest_key(key: str, known: tuple[str, ...]) -> str | None:
    """The key most like `key`: by its whole name, or by its last part alone."""
    whole = difflib.get_close_matches(key, known, n=1)
    if whole:
        return whole[0]
    by_leaf = {name.rpartition(".")[2]: name for name in known}
    leaf = difflib.get_close_matches(key.rpartition(".")[2], list(by_leaf), n=1)
    return by_leaf[leaf[0]] if leaf else None


class _Reader:
    """Where the values come from and which keys exist, for the messages."""

    def __init__(self, origin: str, known: tuple[str, ...]) -> None:
        self._origin = origin
        self._known = known

    def table(self, kind: type[T], table: Mapping[str, object], *, prefix: str) -> T:
        hints = get_type_hints(kind)
        names = [field.name for field in _fields(kind)]
        for key in table:
            if key not in names:
                raise self._unknown(prefix + key)
        values: dict[str, object] = {}
        for field in _fields(kind):
            if field.name in table:
                values[field.name] = self._value(
                    hints[field.name], table[field.name], prefix + field.name
                )
            elif field.default is MISSING and field.default_factory is MISSING:
                raise self._missing(prefix + field.name, hints[field.name])
        try:
            return kind(**values)
        except ConfigError as error:
            raise ConfigError(f"{self._origin}: {error}") from None

    def _value(self, hint: object, value: object, key: str) -> object:
        hint = _given(hint)
        if get_origin(hint) is Literal:
            return self._choice(get_args(hint), value, key)
        if get_origin(hint) is tuple:
            if not isinstance(value, list):
                raise self._mistyped(key, value, "array")
            items = cast("list[object]", value)
            item_hint = get_args(hint)[0]
            return tuple(self._value(item_hint, x, f"{key}[{i}]") for i, x in enumerate(items))
        if _is_section(hint):
            if not isinstance(value, dict):
                raise self._mistyped(key, value, f"section [{key}]")
            return self.table(hint, cast("dict[str, object]", value), prefix=f"{key}.")
        if hint is float and type(value) is int:
            return self._float(value, key)
        if type(value) is not hint:
            raise self._mistyped(key, value, _hint_name(hint))
        return value

    def _float(self, value: int, key: str) -> float:
        try:
            return float(value)
        except OverflowError:
            raise self._error(f"{key} is an integer too large for a float; lower it") from None

    def _choice(self, choices: tuple[object, ...], value: object, key: str) -> object:
        if value in choices and isinstance(value, str):
            return value
        listed = ", ".join(json.dumps(choice) for choice in choices)
        if not isinstance(value, str):
            raise self._mistyped(key, value, f"one of {listed}")
        near = difflib.get_close_matches(value, [str(choice) for choice in choices], n=1)
        remedy = f"; did you mean {json.dumps(near[0])}?" if near else ""
        raise self._error(f"{key} = {json.dumps(value)} must be one of {listed}{remedy}")

    def _unknown(self, key: str) -> ConfigError:
        near = nearest_key(key, self._known)
        remedy = f"did you mean {near}?" if near else "remove it"
        shown = key if key.isprintable() else json.dumps(key)
        return self._error(f"unknown key {shown}; {remedy}")

    def _missing(self, key: str, hint: object) -> ConfigError:
        if _is_section(hint):
            return self._error(f"section [{key}] is missing; add it")
        return self._error(f"key {key} is missing; add it ({_hint_name(hint)})")

    def _mistyped(self, key: str, value: object, wanted: str) -> ConfigError:
        found = _TOML_NAMES.get(type(value), "date or time")
        shown = f" {json.dumps(value)}" if isinstance(value, str | int | float) else ""
        return self._error(f"{key} must be {wanted}, found {found}{shown}; change its type")

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"{self._origin}: {text}")


def _fields(kind: type[object]) -> tuple[Field[object], ...]:
    if not is_dataclass(kind):
        raise ValueError(f"{kind} is not a dataclass")
    return fields(kind)


def _given(hint: object) -> object:
    """What a value that may be left out is if it is not: X of X | None; other hints as they are."""
    if get_origin(hint) is UnionType and len(kinds := get_args(hint)) == 2 and kinds[1] is NoneType:
        return kinds[0]
    return hint


def _is_section(hint: object) -> TypeGuard[type[object]]:
    return isinstance(hint, type) and is_dataclass(hint)


def _hint_name(hint: object) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return f"array of {_hint_name(get_args(hint)[0])}"
    return _TOML_NAMES[hint] if isinstance(hint, type) else str(hint)
