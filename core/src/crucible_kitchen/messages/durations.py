"""Durations as people read them."""

from __future__ import annotations

UNITS = (("h", 3600.0, 7200.0), ("min", 60.0, 120.0), ("s", 1.0, 1.0), ("ms", 1e-3, 1e-3))
"""Unit, its size in seconds, and the shortest duration, in seconds, that it is used for."""


def duration(seconds: float) -> str:
    """Return a duration with three digits and a suitable unit, such as `12.3 ms`."""
    unit, size = next(((u, size) for u, size, least in UNITS if seconds >= least), ("µs", 1e-6))
    value = seconds / size
    return f"{value:,.0f} {unit}" if value >= 99.95 or value == 0 else f"{value:#.3g} {unit}"
