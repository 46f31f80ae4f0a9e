"""Values that have a text of their own, such as dates, as JSON, and values again."""

from __future__ import annotations

import datetime
import decimal
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

_Kind: TypeAlias = type[datetime.datetime] | type[datetime.time]

_BY_TEXT: Mapping[str, tuple[type[Any], Callable[[Any], str], Callable[[str], Any]]] = {
    "$datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "$date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "$time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "$decimal": (decimal.Decimal, str, decimal.Decimal),
    "$uuid": (uuid.UUID, str, uuid.UUID),
    "$path": (type(Path()), str, Path),
}
_TAGS = {kind: tag for tag, (kind, _, _) in _BY_TEXT.items()}
_ZONED: Mapping[str, _Kind] = {"$datetime": datetime.datetime, "$time": datetime.time}


def plain_text(value: Any, masked: Callable[[str], str]) -> dict[str, Any] | None:
    """Return a value as JSON; None if it has no text that says all.

    Not of a class of another library: its times may have nanoseconds, say.

    Args:
        value: any.
        masked: returns a text without secrets.
    """
    if (tag := _TAGS.get(type(value))) is None:
        return None
    if tag in _ZONED and isinstance(zone := value.tzinfo, zoneinfo.ZoneInfo):
        if not zone.key:  # it was read from a file
            return None
        # The offset alone would be another time in half a year; a time of day has none.
        return {tag: [value.replace(tzinfo=None).isoformat(), zone.key, value.fold]}
    return {tag: masked(_BY_TEXT[tag][1](value))}


def is_text(tag: str) -> bool:
    """Return whether a tag is that of a value with a text."""
    return tag in _BY_TEXT


def text_of(tag: str, inside: Any) -> Any:
    """Return the value again."""
    if isinstance(inside, list):
        text, zone, fold = inside
        made = _ZONED[tag].fromisoformat(text)
        return made.replace(tzinfo=zoneinfo.ZoneInfo(zone), fold=fold)
    return _BY_TEXT[tag][2](inside)
