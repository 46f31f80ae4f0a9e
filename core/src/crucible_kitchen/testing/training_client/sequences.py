"""Any sequence of calls."""

from __future__ import annotations

import functools

from hypothesis import Phase

from .bench import Bench
from .fixtures import BreakSession, TrainingClientFixtures
from .machine import HistoryMachine


class Sequences(TrainingClientFixtures):
    """Any calls, in any order."""

    def test_any_sequence_of_calls_does_what_its_history_says(
        self, bench: Bench, break_session: BreakSession
    ) -> None:
        """However sessions are started, trained, saved, loaded, broken and closed, the weights
        of each are a function of the gradients and steps that led to them, and each call
        succeeds or fails as the state of its session says.

        Usually broken by what one operation leaves behind for another.
        """
        machine = functools.partial(HistoryMachine, bench, break_session, {})
        self.run_machine(
            machine,
            steps=15,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),  # to explain a failure takes long
        )
