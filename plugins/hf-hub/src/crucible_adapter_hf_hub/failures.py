"""Failures of a hub as errors of the contract."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    causes,
)

WAYS_OUT = "try again later, or set `offline = true` to use what is in the cache"

_MISSING = {
    "RepoNotFound": (
        "repository",
        "there is no such repository, or it is private; check the id and `repo_type`, or set "
        "`token`",
    ),
    "RevisionNotFound": ("revision", "the repository has no such revision"),
    "EntryNotFound": ("file", "the repository has no such file"),
}


def refusal(response: Any, what: str) -> AdapterError:
    """Return the error for an answer with an error status.

    The hub's own code overrides the status: without a token, it answers 401 for a repository that
    does not exist.
    """
    status, code = response.status_code, response.headers.get("X-Error-Code")
    message = said(response.headers.get("X-Error-Message") or response.reason_phrase)
    if code in _MISSING:
        missing, reason = _MISSING[code]
        return NotFound(f"{what}: {reason}", details={"missing": missing})
    if code == "GatedRepo":
        return Unauthorized(
            f"{what}: access is granted to each user; ask for it on the repository's page, and set "
            f"`token` ({status} {message})"
        )
    if status in (401, 403):
        return Unauthorized(
            f"{what}: the hub refuses the token or requires one ({status} {message})"
        )
    if status == 429:
        wait = seconds_to_wait(response.headers)
        when = "" if wait is None else f" for {wait:g} s"
        return RateLimited(
            f"{what}: the hub refuses requests{when} (429 {message})", retry_after=wait
        )
    if status == 404:
        return NotFound(f"{what}: not found ({message})")
    if status in (408, 504):
        return AdapterTimeout(f"{what}: the hub took too long ({status} {message})")
    if status >= 500:
        return Unavailable(f"{what}: the hub fails ({status} {message}); {WAYS_OUT}")
    return InvalidInput(f"{what}: the hub refuses the request ({status} {message})")


_LONGEST_WAIT = 3600.0
"""Limit of `RateLimited.retry_after` in seconds. The hub's own windows are of five minutes."""

_WINDOW = re.compile(r";\s*r\s*=\s*0+\s*;\s*t\s*=\s*([0-9]{1,9})\s*(;|,|$)")


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a hub asks to wait, at most an hour; None if it does not say.

    They are those of `Retry-After`, or of the hub's own `RateLimit: "api";r=0;t=55`.
    """
    seconds = RateLimited.retry_after_of(headers)
    if seconds is None and (window := _WINDOW.search(headers.get("RateLimit", "")[:256])):
        seconds = float(window[1])
    return None if seconds is None else min(seconds, _LONGEST_WAIT)


def said(text: object, most: int = 120) -> str:
    """Quote a text of the hub for a message: cut, and with control characters escaped."""
    whole = str(text)
    return repr(whole) if len(whole) <= most else f"{whole[:most]!r}..."


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translate exceptions of huggingface_hub and the libraries below it to those of the contract.

    Args:
        what: the subject of the messages.
    """
    before = sys.exception()
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        chain = list(causes(error, before))
        for cause in chain:
            if isinstance(cause, AdapterError):  # uploads wrap everything that is raised inside
                raise cause from None
        failure = _translation(error, chain, what)
        if failure is None:
            raise
        raise failure from error


def _translation(
    error: Exception, chain: Sequence[BaseException], what: str
) -> AdapterError | None:
    for cause in chain:
        # By their names, since the library below huggingface_hub has changed before.
        names = {cls.__name__ for cls in type(cause).__mro__}
        if (response := getattr(cause, "response", None)) is not None:
            return refusal(response, what)
        if "OfflineModeIsEnabled" in names:
            return Unavailable(
                f"{what}: HF_HUB_OFFLINE forbids asking the hub; set `offline = true` to use what "
                "is in the cache",
                retryable=False,
            )
        if "TimeoutException" in names:
            return AdapterTimeout(f"{what}: the hub did not answer in time; {WAYS_OUT}")
        if "TransportError" in names:
            return Unavailable(f"{what}: the hub cannot be reached ({said(cause)}); {WAYS_OUT}")
        if {"HTTPError", "InvalidURL", "StreamError"} & names:
            return Unavailable(f"{what}: the hub's answer cannot be used ({said(cause)})")
        if isinstance(cause, json.JSONDecodeError):
            return Unavailable(f"{what}: `endpoint` does not answer as a hub, with JSON ({cause})")
        if isinstance(cause, PermissionError):
            return Unauthorized(f"{what}: the cache cannot be used: {cause}")
    if isinstance(error, OSError) and error.errno in (None, errno.ENOSPC, errno.EDQUOT):
        # No errno: the library found that the body's size was wrong.
        return Unavailable(f"{what}: {str(error).partition(chr(10))[0]}")
    return None
