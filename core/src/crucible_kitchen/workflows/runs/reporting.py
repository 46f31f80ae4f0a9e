"""What observers and the record of a run hear of its beginning and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ...errors import CrucibleError
from ...events import kinds
from ...kitchen import Kitchen
from .run import Run


@contextlib.contextmanager
def reported(kitchen: Kitchen, workflow: str, run: Run[Any]) -> Iterator[None]:
    """Report to observers, and to the record, how a run begins and ends in this block."""
    emit = kitchen.observers.emit
    about = {"workflow": workflow, "run_id": run.id}
    settings = run.record.config
    emit(kinds.WorkflowStart(resumed_at=run.step, done=run.done, config=settings, **about))
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(CrucibleError):  # never hide the first failure behind another
            run.fail(error)
        kind = type(error).__name__
        emit(kinds.WorkflowException(step=run.step, error=kind, **about))
        raise
    emit(kinds.WorkflowStop(**about))
