"""The end of the process, which libraries may neither delay for ever nor turn into a crash."""

from __future__ import annotations

import contextlib
import sys
import threading
import time

from ..messages.printable import printable
from .interruption import leave, signals

GRACE = 10.0
"""Seconds that the threads and exit functions of libraries get after the end of the command."""

WATCH = "crucible-end"
"""Name of the thread that enforces it."""


def prepare(code: int) -> None:
    """End this process with an exit code at most `GRACE` seconds after Python begins to end it.

    Python waits for threads that are not daemons, and for functions registered with `atexit`.
    """
    began = threading.Event()
    watch = threading.Thread(target=_watch, args=(code, began), name=WATCH, daemon=True)
    watch.start()
    # Called before the threads are waited for; concurrent.futures uses it in the same way.
    threading._register_atexit(began.set)  # type: ignore[attr-defined]


def _watch(code: int, began: threading.Event) -> None:
    began.wait()
    time.sleep(GRACE)
    names = [thread.name for thread in threading.enumerate() if not thread.daemon]
    others = [name for name in names if name != threading.main_thread().name]
    who = f"the threads {', '.join(others)}" if others else "what libraries do at exit"
    leave(code, printable(f"not waiting any longer for {who} ({GRACE:g} s)"))


def at_exit() -> None:
    """End the process as the last of all exit functions.

    During the interpreter's shutdown, threads that libraries left running crash, and signals kill
    the process again.
    """
    code = signals.exit_code
    if code is None:
        return
    signals.ignore()
    left = [t for t in threading.enumerate() if t is not threading.current_thread()]
    if any(thread.name != WATCH for thread in left):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        leave(code)
