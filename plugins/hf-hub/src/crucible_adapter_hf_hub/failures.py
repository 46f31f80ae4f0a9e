"""What can go wrong with a hub, as the contract says it."""

from __future__ import annotations

import email.utils
import errno
import json
import re
import time
from collections.abc import Iterator
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
    """Return the error of an answer that is none.

    The hub's own code counts before the status: it answers 401 for a repository that does not
    exist to whoever has no token.
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
        return Unauthorized(f"{what}: the hub refuses the token or wants one ({status} {message})")
    if status == 429:
        wait = seconds_to_wait(response.headers)
        when = "" if wait is None else f" for {wait:g} s"
        return RateLimited(
            f"{what}: the hub takes no requests{when} (429 {message})", retry_after=wait
        )
    if status == 404:
        return NotFound(f"{what}: not found ({message})")
    if status in (408, 504):
        return AdapterTimeout(f"{what}: the hub took too long ({status} {message})")
    if status >= 500:
        return Unavailable(f"{what}: the hub fails ({status} {message}); {WAYS_OUT}")
    return InvalidInput(f"{what}: the hub refuses the request ({status} {message})")


LONGEST_WAIT = 3600.0
"""Seconds that an error asks to wait at most. The hub's own windows are of five minutes."""

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_WINDOW = re.compile(r";\s*r\s*=\s*0+\s*;\s*t\s*=\s*([0-9]{1,9})\s*(;|,|$)")


def seconds_to_wait(headers: Any) -> float | None:
    """Return the seconds to wait, at most `LONGEST_WAIT`; None if the hub says none, or nonsense.

    `Retry-After` is a number or a date (RFC 9110, 10.2.3), and the hub itself sends
    `RateLimit: "api";r=0;t=55`.
    """
    text = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_WAIT)
    try:
        date = email.utils.parsedate_to_datetime(text[:64]).timestamp()
        return min(max(0.0, date - time.time()), LONGEST_WAIT)
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        window = _WINDOW.search(headers.get("RateLimit", "")[:256])
        return min(float(window[1]), LONGEST_WAIT) if window else None


def said(text: object, most: int = 120) -> str:
    """Return what a hub said, for a message: in quotes, cut, and nothing that a terminal obeys."""
    whole = str(text)
    return repr(whole) if len(whole) <= most else f"{whole[:most]!r}..."


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what huggingface_hub and the libraries below it raise into what the contract says."""
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        for cause in _chain(error):
            if isinstance(cause, AdapterError):  # uploads wrap whatever is raised inside
                raise cause from None
        explanation = _explain(error, what)
        if explanation is None:
            raise
        raise explanation from error


def _explain(error: Exception, what: str) -> AdapterError | None:
    for cause in _chain(error):
        # By their names, since the library below huggingface_hub has changed before.
        names = {cls.__name__ for cls in type(cause).__mro__}
        if (response := getattr(cause, "response", None)) is not None:
            return refusal(response, what)
        if "OfflineModeIsEnabled" in names:
            return Unavailable(
                f"{what}: HF_HUB_OFFLINE forbids to ask the hub; set `offline = true` to use what "
                "is in the cache",
                retryable=False,
            )
        if "TimeoutException" in names:
            return AdapterTimeout(f"{what}: the hub does not answer in time; {WAYS_OUT}")
        if "TransportError" in names:
            return Unavailable(f"{what}: the hub cannot be reached ({said(cause)}); {WAYS_OUT}")
        if {"HTTPError", "InvalidURL", "StreamError"} & names:
            return Unavailable(f"{what}: the hub's answer cannot be used ({said(cause)})")
        if isinstance(cause, json.JSONDecodeError):
            return Unavailable(f"{what}: what answers at `endpoint` is no hub: no JSON ({cause})")
        if isinstance(cause, PermissionError):
            return Unauthorized(f"{what}: the cache cannot be used: {cause}")
    if isinstance(error, OSError) and error.errno in (None, errno.ENOSPC, errno.EDQUOT):
        # Without a number: the library found that the body's size was wrong.
        return Unavailable(f"{what}: {str(error).partition(chr(10))[0]}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
