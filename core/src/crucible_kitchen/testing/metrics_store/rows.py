"""Rows, in the form in which they are compared."""

from __future__ import annotations

import sys
from typing import TypeAlias

from hypothesis import strategies as st

from ...ports import MetricsStore

Row: TypeAlias = tuple[str, str, int | None]
"""Metric, value as Python writes it (NaN equals itself then), step."""


# -0.0 and the largest floats have their own promises.
FLOATS = (
    st.floats()
    .map(lambda value: value + 0.0)
    .filter(lambda value: abs(value) != sys.float_info.max)
)


def rows(store: MetricsStore, run_id: str) -> list[Row]:
    return [(entry.metric, repr(entry.value), entry.step) for entry in store.read(run_id)]
