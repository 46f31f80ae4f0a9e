"""The fixtures of a metrics store's tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias

import pytest

from ..conformance import Conformance

Stored: TypeAlias = Callable[[str], Mapping[tuple[str, int], float]]


class MetricsStoreFixtures(Conformance):
    """The fixtures of the suite."""

    names: ClassVar[tuple[str, ...]] = (
        "plain",
        "train/mean_nll",
        "with space",
        "a.b.c",
        "naïve-Übung-数据-🙂",
        "percent%20and%2F",
        "plus+and&and=and#and?",
        "quote'and\"and`",
        "[bracket]*{brace}",
        "back\\slash",
        "colon:at@and,comma;",
        "$.path",
        "../../outside",
    )
    """What names of metrics and ids of runs must be able to hold."""
    more_than_a_page: ClassVar[int] = 1050
    """How many rows no backend writes in one batch, or reads in one page."""

    @pytest.fixture
    def stored(self) -> Stored | None:
        """A function that reads a run behind the adapter's back: the value that counts for each
        (metric, step), without the rows that have no step. Optional: with it the kit does not have
        to believe the adapter's own `read`.
        """
        return None

    @pytest.fixture
    def run_id(self) -> str:
        """A run that no other test records to."""
        return f"conformance-{uuid.uuid4().hex}"
