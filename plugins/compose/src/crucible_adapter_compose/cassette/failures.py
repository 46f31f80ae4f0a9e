"""Errors as plain JSON, and errors again: of our classes, or of Python's own."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
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
        about["details"] = plain(details)
    return about | {name: getattr(error, name) for name in _WHERE if getattr(error, name)}


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


def plain_exception(error: Exception, plain: Callable[[Any], Any]) -> dict[str, Any]:
    """Return what a helper raised, of whatever class, as JSON."""
    if isinstance(error, AdapterError):
        return {"$error": plain_error(error, plain)}
    return {"class": type(error).__name__, "text": plain(str(error))}


def exception_of(about: Mapping[str, Any], value_of: Callable[[Any], Any]) -> Exception:
    """Return what a helper raised again."""
    if "$error" in about:
        return error_of(about["$error"], value_of)
    name, text = str(about["class"]), value_of(about["text"])
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:  # a UnicodeDecodeError takes five arguments
            pass
    return RecordedError(f"{name}: {text}")
