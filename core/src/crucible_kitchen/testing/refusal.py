"""A call that must fail: what is said if it does not names the callback and its arguments."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

from ..calls.streams import Stream
from ..messages.printable import printable, repr_of

RefusalT = TypeVar("RefusalT", bound=Exception)

_short = reprlib.Repr()
_short.maxlist = _short.maxtuple = _short.maxdict = 4
_short.maxstring, _short.maxother = 60, 200


def refuses(
    expected: type[RefusalT] | tuple[type[RefusalT], ...],
    callback: Callable[..., Any],
    /,
    *given: Any,
    **named: Any,
) -> RefusalT:
    """Call a callback of a port; check that it raises one of these errors, and return the error.

        refuses(InvalidInput, completer.complete, prompt, replace(sampling, n=2))

    A stream is read to its end, since an adapter may refuse at the first piece.

    Raises:
        AssertionError: it returned, or it raised something else. The message says what was called
            with what, and what happened: `complete did not raise InvalidInput for ...`. (What
            `pytest.raises` raises then is not an `Exception`, and so never only a warning.)
    """
    __tracebackhide__ = True
    try:
        found = callback(*given, **named)
        if isinstance(found, Stream):
            for _ in found:
                pass
    except expected as error:
        return error
    except Exception as error:
        what = f"it raised {type(error).__name__}: {error}"
        raise AssertionError(_problem(expected, callback, given, named, what)) from error
    what = f"it returned {shown(found)}"
    raise AssertionError(_problem(expected, callback, given, named, what))


def shown(value: Any) -> str:
    """Return how a value is written in messages: short, and on one line."""
    try:
        return printable(_short.repr(value)).replace("\n", "\\n")
    except Exception:  # a handle of an adapter, whose `repr` may do anything
        return repr_of(type(value))


def _problem(expected: Any, callback: Any, given: Any, named: Any, what: str) -> str:
    errors = expected if isinstance(expected, tuple) else (expected,)
    names = " or ".join(error.__name__ for error in errors)
    arguments = inspect.signature(callback).bind(*given, **named).arguments
    listed = ", ".join(f"{name}={shown(value)}" for name, value in arguments.items())
    called = getattr(callback, "__name__", shown(callback))
    return f"{called} did not raise {names}{f' for {listed}' if listed else ''}; {what}"
