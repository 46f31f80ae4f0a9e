"""What Python itself prints on standard error, as messages like ours.

That is errors in threads and in destructors, and log records of libraries, whatever handles them:
none shows a known secret, or control sequences of a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import traceback
from typing import Any

from ..messages.printable import printable, text_of
from . import console


def take() -> None:
    """Print these as messages from now on. Only for the process of the command."""
    threading.excepthook = _of_a_thread
    sys.unraisablehook = _of_a_destructor
    made = logging.getLogRecordFactory()

    def factory(*about: Any, **more: Any) -> logging.LogRecord:
        return _readable(made(*about, **more))

    logging.setLogRecordFactory(factory)


def _of_a_thread(about: threading.ExceptHookArgs) -> None:
    if about.exc_type is not SystemExit:
        name = "a thread" if about.thread is None else f"the thread {about.thread.name}"
        _note(f"in {name}:", about.exc_value)


def _of_a_destructor(about: sys.UnraisableHookArgs) -> None:
    if issubclass(about.exc_type, KeyboardInterrupt):
        return  # it is raised again, see interruption.py
    _note(f"{about.err_msg or 'ignored'}, in {type(about.object).__name__}:", about.exc_value)


def _note(where: str, error: BaseException | None) -> None:
    if error is not None:
        console.note(f"{where}\n{_traceback(error)}")


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip("\n")


def _readable(record: logging.LogRecord) -> logging.LogRecord:
    """Return a record whose text and traceback are fit to be shown."""
    with contextlib.suppress(Exception):  # its arguments do not fit, which logging reports
        record.msg = printable(console.without_secrets(text_of(record.getMessage())))
        record.args = ()
        if record.exc_info and record.exc_info[1] is not None:
            text = _traceback(record.exc_info[1])
            record.exc_text = printable(console.without_secrets(text))
    return record
