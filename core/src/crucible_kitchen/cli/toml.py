"""Values as TOML writes them in one line."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from ..messages.printable import printable_json, text_of


def toml(value: Any) -> str:
    """Return a plain value, or a dataclass of plain values, as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        given = {k: v for k, v in value.items() if v is not None}  # TOML has no null
        inside = ", ".join(f"{key(k)} = {toml(v)}" for k, v in given.items())
        return f"{{ {inside} }}" if inside else "{}"
    return _text(value)


def key(name: Any) -> str:
    """Return the name of a key, in quotes if it needs them."""
    name = text_of(name)
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: Any) -> str:
    return printable_json(json.dumps(text_of(value), ensure_ascii=False))
