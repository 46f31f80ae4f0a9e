"""The mask that stands for a secret."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

MASK = "**********"


def blanked(text: str, spans: Iterator[tuple[int, int]]) -> str:
    """Return a text with the mask in place of each span; spans may overlap."""
    kept: list[str] = []
    behind = 0
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if start > behind or not kept:
            kept.append(text[behind:start])
        behind = max(behind, end)
    return MASK.join([*kept, text[behind:]]) if kept else text


def hidden(value: Any) -> Any:
    """Return what is shown of a secret: the mask. None, booleans and empty values are shown."""
    there = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    nothing = (
        there is None or isinstance(there, bool) or (isinstance(there, Sized) and not len(there))
    )
    return there if nothing else MASK
