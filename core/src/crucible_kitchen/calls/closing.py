"""Closing adapters: each is given a limited time, and a failure of one leaves none of them open."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import warnings
from collections.abc import Callable, Sequence

from ..errors import AdapterTimeout, CrucibleWarning, described

CLOSE_TIMEOUT = 30.0
"""Seconds that an adapter is given to close, before the others are closed without it."""


class LeftOpen(AdapterTimeout):
    """An adapter did not close in time, so it was left as it is."""


def ends_in_time(call: Callable[[], object], seconds: float) -> bool:
    """Run a call in a thread of its own; say whether it ended within `seconds`.

    A call that did not continues in its thread, which does not keep the process from ending.

    Raises:
        BaseException: what the call raised; also a KeyboardInterrupt that came while waiting.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(
        target=contextvars.copy_context().run, args=[run], name="crucible-close", daemon=True
    )
    try:
        thread.start()
    except RuntimeError:  # Python is ending, or the limit of threads is reached
        call()
        return True
    thread.join(seconds)
    if thread.is_alive():
        return False
    for failure in failures:
        raise failure
    return True


def raise_first(failures: Sequence[BaseException]) -> None:
    """Raise the first failure, or Ctrl-C if it came; warn of the others."""
    if not failures:
        return
    first = next((f for f in failures if isinstance(f, KeyboardInterrupt)), failures[0])
    for failure in failures:
        if failure is not first:
            warn_of(failure)
    raise first


def warn_of(failure: BaseException) -> None:
    """Warn of a failure that is not raised because another one is."""
    with contextlib.suppress(CrucibleWarning):  # where warnings are errors, that other one counts
        warnings.warn(described(failure).partition(": ")[2], CrucibleWarning, stacklevel=3)
