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
_ANY_TEXT = ("$path",)
"""Those that may be of any text."""
_UNKNOWN = object()
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
    if tag in _ZONED and (value.fold or value.tzinfo is not None):
        if (zone := _plain_zone(value.tzinfo)) is _UNKNOWN:
            return None
        return {tag: [value.replace(tzinfo=None, fold=0).isoformat(), zone, value.fold]}
    text = _BY_TEXT[tag][1](value)
    if tag not in _ANY_TEXT and masked(text) != text:  # a mask is not a date
        return None
    return {tag: masked(text)}


def _plain_zone(zone: datetime.tzinfo | None) -> Any:
    """Return a zone as JSON. The offset alone would be another time in half a year."""
    if type(zone) is zoneinfo.ZoneInfo and zone.key:  # else it was read from a file
        return zone.key
    if isinstance(zone, datetime.timezone):
        return [zone.utcoffset(None).total_seconds(), zone.tzname(None)]
    return zone if zone is None else _UNKNOWN


def _zone_of(zone: Any) -> datetime.tzinfo | None:
    if not isinstance(zone, list):
        return zone if zone is None else zoneinfo.ZoneInfo(zone)
    offset, name = datetime.timedelta(seconds=zone[0]), zone[1]
    made = datetime.timezone(offset)
    return made if made.tzname(None) == name else datetime.timezone(offset, name)


def with_article(noun: str) -> str:
    """Return a noun with `a` or `an`, as it is spoken: an int64, a uint8."""
    return f"{'an' if noun.lower().startswith(('a', 'e', 'i', 'o')) else 'a'} {noun}"


def is_text(tag: str) -> bool:
    """Return whether a tag is that of a value with a text."""
    return tag in _BY_TEXT


def text_of(tag: str, inside: Any) -> Any:
    """Return the value again."""
    if isinstance(inside, list):
        text, zone, fold = inside
        made = _ZONED[tag].fromisoformat(text)
        return made.replace(tzinfo=_zone_of(zone), fold=fold)
    return _BY_TEXT[tag][2](inside)
