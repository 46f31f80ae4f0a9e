"""Any sequence of calls."""

from __future__ import annotations

import functools

from ...ports import MetricsStore
from .fixtures import MetricsStoreFixtures
from .machine import DictionaryMachine


class Sequences(MetricsStoreFixtures):
    """Any calls, in any order."""

    def test_any_sequence_of_calls_does_what_a_dictionary_does(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """Whatever is recorded, flushed and read, in whatever order, a run is what a dictionary
        of (metric, step) would be, with a new key for each row without a step.

        Usually broken by rows that are held back and rows that are written, put together wrongly.
        """
        self.run_machine(functools.partial(DictionaryMachine, metrics_store, run_id), steps=30)
