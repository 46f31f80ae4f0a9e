"""A call that may hang, waited for only so long."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

CLOSE_TIMEOUT = 30.0
"""Seconds that an adapter is given to close, before the others are closed without it."""


def ends_in_time(call: Callable[[], object], seconds: float) -> bool:
    """Run a call in a thread of its own, and say whether it ended within so many seconds.

    A call that did not goes on in its thread, which does not keep the process from ending.

    Raises:
        BaseException: what the call raised; KeyboardInterrupt also where it came while waiting.
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
    except RuntimeError:  # Python is ending, or there are as many threads as there may be
        call()
        return True
    thread.join(seconds)
    if thread.is_alive():
        return False
    for failure in failures:
        raise failure
    return True
