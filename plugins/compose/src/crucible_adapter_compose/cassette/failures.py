"""Errors as plain JSON, and errors again: of our classes, or of Python's own."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    AlreadyExists,
    InvalidInput,
    NotFound,
    RateLimited,
    SessionClosed,
    SessionFailed,
    Unauthorized,
    Unavailable,
    Unsupported,
)

_OURS: Mapping[str, type[AdapterError]] = {
    kind.__name__: kind
    for kind in (
        *(AdapterError, AdapterTimeout, AlreadyExists, InvalidInput, NotFound, RateLimited),
        *(SessionClosed, SessionFailed, Unauthorized, Unavailable, Unsupported),
    )
}
_WHERE = ("port", "adapter", "callback")


class RecordedError(Exception):
    """An error of a helper whose class a cassette does not know: its name and its text."""


def plain_error(error: AdapterError, plain: Callable[[Any], Any]) -> dict[str, Any]:
    """Return an adapter's error as JSON.

    Args:
        error: of a class of an adapter's own it is the nearest class of ours that is kept.
        plain: turns its fields into JSON, without secrets.
    """
    kind = next(each.__name__ for each in type(error).__mro__ if each in _OURS.values())
    about: dict[str, Any] = {"class": kind, "reason": plain(error.reason)}
    if kind != type(error).__name__:
        about["type"] = type(error).__name__
    about |= {"retryable": error.retryable, "no_effect": error.no_effect}
    if (after := getattr(error, "retry_after", None)) is not None:
        about["retry_after"] = after
    if details := getattr(error, "details", None):
        about["details"] = _without_unrecordable(plain(details))
    return about | {name: getattr(error, name) for name in _WHERE if getattr(error, name)}


def _without_unrecordable(plain: Any) -> Any:
    """Return JSON that says in a text what a cassette cannot hold: the error is more than that."""
    if isinstance(plain, list):
        return [*map(_without_unrecordable, plain)]
    if not isinstance(plain, dict):
        return plain
    if "$unrecordable" in plain:
        return f"{plain['$unrecordable']}, which a cassette cannot hold"
    return {name: _without_unrecordable(inside) for name, inside in plain.items()}


def error_of(about: Mapping[str, Any], value_of: Callable[[Any], Any]) -> AdapterError:
    """Return the error again, which says where it happened when it was recorded."""
    kind, fields = _OURS[about["class"]], {}
    if issubclass(kind, RateLimited):
        fields["retry_after"] = about.get("retry_after")
    error = kind(
        about["reason"],
        retryable=about["retryable"],
        no_effect=about["no_effect"],
        details=value_of(about.get("details", {})),
        **fields,
    )
    error.port, error.adapter, error.callback = (about.get(name) for name in _WHERE)
    return error


def _made(kind: type[Exception], arguments: Sequence[Any]) -> list[Exception]:
    try:
        return [kind(*arguments)]
    except (TypeError, ValueError):  # a UnicodeDecodeError takes five, and no text
        return []


def plain_exception(error: Exception, plain: Callable[[Any], Any]) -> dict[str, Any]:
    """Return what a helper raised, of whatever class, as JSON."""
    if isinstance(error, AdapterError):
        return {"$error": plain_error(error, plain)}
    given = error.args
    if isinstance(error, OSError) and error.filename is not None:
        given = (error.errno, error.strerror, error.filename)
        if error.filename2 is not None:
            given = (*given, None, error.filename2)
    arguments = _without_unrecordable(plain([*given]))
    return {"class": type(error).__name__, "text": plain(str(error)), "arguments": arguments}


def exception_of(about: Mapping[str, Any], value_of: Callable[[Any], Any]) -> Exception:
    """Return what a helper raised again."""
    if "$error" in about:
        return error_of(about["$error"], value_of)
    name, text = str(about["class"]), value_of(about["text"])
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        made = [*_made(kind, value_of(about.get("arguments", [text]))), *_made(kind, [text])]
        if made:
            return next((each for each in made if str(each) == text), made[-1])
    return RecordedError(f"{name}: {text}")
