"""Complaints about a setting, one line each: its key, its value, what is allowed, what to do."""

from __future__ import annotations

import json

from streamgen.errors import ConfigError


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raises ConfigError if the value is not in [low, high]."""
    if not low <= value <= high:
        nearest = high if value > high else low
        raise wrong(key, value, f"must be in [{low}, {high}]", f"use {nearest}")


def wrong(key: str, value: object, allowed: str, remedy: str) -> ConfigError:
    return ConfigError(f"{key} = {shown(value)} {allowed}; {remedy}")


def shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
