"""How often the session of a run may fail, and has."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import Any, TypeVar

from ..errors import AdapterError, RateLimited
from ..events import kinds
from ..kitchen import Kitchen
from .runs import Run

Result = TypeVar("Result")


class Restarts:
    """The restarts of a run, of which its settings allow `max_restarts`.

    Args:
        kitchen: its observers are told of each.
        workflow: the workflow's name, for events.
        run: the run.
    """

    def __init__(self, kitchen: Kitchen, workflow: str, run: Run[Any]) -> None:
        self._kitchen, self._workflow, self._run = kitchen, workflow, run
        self._done = 0

    def count(self, error: AdapterError) -> None:
        """Report that the session is restored after a failure, and wait as long as the backend
        asks for.

        Raises:
            AdapterError: the error itself, if no restart is left.
        """
        allowed = self._run.config.max_restarts
        if self._done >= allowed:
            if allowed:
                error.add_note(f"restarts are used up (workflow.max_restarts={allowed})")
            raise error
        self._done += 1
        self._kitchen.observers.emit(
            kinds.WorkflowRestart(
                workflow=self._workflow,
                run_id=self._run.id,
                step=self._run.step,
                restart=self._done,
                callback=error.callback,
                error=type(error).__name__,
            )
        )
        asked = error.retry_after if isinstance(error, RateLimited) else None
        sleep(asked or 0)

    def again(self, call: Callable[[], Result]) -> Result:
        """Return what a call returns; repeat it while that may help, each time as a restart.

        Raises:
            AdapterError: it would fail again, or no restart is left.
        """
        while True:
            try:
                return call()
            except AdapterError as error:
                if not error.retryable:
                    raise
                self.count(error)
