"""Counts of things in English."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Return a number with its noun, which takes an `s`: `1 line`, `2 lines`, `1,000 lines`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
