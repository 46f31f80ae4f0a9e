"""What goes wrong between client and server, as the contract's errors."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import mktime_tz, parsedate_tz

import httpx2
import openai
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    Unsupported,
)

from .said import cut, shown

LONGEST_RETRY_AFTER = 600.0
"""The most seconds of `RateLimited.retry_after`, whatever the server says: `retry` waits them."""

# What waiting does not cure.
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
# The same by servers without codes: `transformers serve`, pydantic's strict models.
_UNSUPPORTED_TEXTS = ("Unexpected fields", "Extra inputs are not permitted")
# `transformers serve` (5.23.0) answers 400, not 404, for a model that it was not started with.
_NO_MODEL_TEXT = "Server is pinned to"


ERRORS = (openai.APIError, httpx2.RequestError, UnicodeDecodeError)
"""What talking to a server raises, through the SDK and beside it."""


def explanation(error: Exception, url: str, timeout: float) -> AdapterError:
    """Return the contract's error for one of `ERRORS`, of this URL under this timeout.

    It is to be raised outside of the `except`, so that it keeps neither cause nor context: they say
    nothing more, and hold all of the answer and the request, with the key.
    """
    cause: BaseException | None = error
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, url)
    if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException):
        return AdapterTimeout(
            f"{url} gave no sign of life in time ({type(cause).__name__}, after at most "
            f"{timeout:g} s); a server that needs longer needs a larger option `timeout`"
        )
    if isinstance(error, httpx2.SSEError):
        return AdapterError(
            f"{url}: {error} If that is what it should send, set the option `max_event_bytes`"
        )
    if isinstance(error, UnicodeDecodeError):
        return Unavailable(f"{url} sent what cannot be read: {error}")
    if isinstance(cause, httpx2.ProtocolError):
        return Unavailable(f"{url} hung up, or sent what is not HTTP: {cut(str(cause))}")
    return Unavailable(f"cannot reach {url}, or it hung up: {cut(str(cause))}")


def unreadable(url: str, text: str | bytes, error: ValueError | RecursionError) -> AdapterError:
    """Return the error for what should be JSON, and is not or cannot be taken in."""
    if isinstance(error, json.JSONDecodeError):  # cut off, most often
        return Unavailable(f"{url} sent what cannot be read, {shown(text[:300])}: {error}")
    return AdapterError(f"{url} sent JSON that is too deep or has too long a number: {error}")


def _of_status(error: openai.APIStatusError, url: str) -> AdapterError:
    status = error.status_code
    text = _text(error.body) or cut(error.response.reason_phrase)
    reason = f"{url} answered {status}: {text}"
    details = {"status": status, "code": None if error.code is None else cut(error.code)}
    if 300 <= status < 400:
        return AdapterError(
            f"{url} answered {status}, a redirect to "
            f"{shown(error.response.headers.get('location', ''))}, which is not followed: key and "
            "prompts go to no other address than `base_url`; set that one if it is right",
            details=details,
        )
    if status in (401, 403):
        return Unauthorized(f"{reason}; is `api_key` right?", details=details)
    if status == 404:
        return NotFound(
            f"{reason}; is the model served, and does `base_url` end as it should, mostly in /v1?",
            details=details,
        )
    if status in (402, 429):
        spent = status == 402 or any(
            each in _QUOTA for each in (error.code, error.type) if isinstance(each, str)
        )
        return RateLimited(
            reason,
            retry_after=None if spent else _retry_after(error.response.headers),
            retryable=not spent,
            details=details,
        )
    if status in (400, 413, 422):
        if error.code in _UNSUPPORTED or any(each in text for each in _UNSUPPORTED_TEXTS):
            return Unsupported(reason, details=details)
        if _NO_MODEL_TEXT in text:
            return NotFound(reason, details=details)
        return InvalidInput(reason, details=details)
    if status == 408:
        return AdapterTimeout(reason, details=details)
    if status >= 500:
        return Unavailable(reason, details=details)
    return AdapterError(reason, details=details)


def _text(body: object) -> str:
    """Return what the body of an error says: {"message": ...}, {"detail": ...} or plain text."""
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body
    return cut(body or "") if isinstance(body, str | None) else shown(body)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, from 0 to `LONGEST_RETRY_AFTER`.

    They are those of `retry-after-ms`, which OpenAI and Azure send, or of `Retry-After` (RFC 9110,
    10.2.3): a number or a date. None if it says neither.
    """
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(ValueError):
            seconds = float(headers.get(name, "")) / unit
            if not math.isnan(seconds):
                return _clamped(seconds)
    # Of a date of many digits `parsedate_tz` makes other errors than it documents.
    with suppress(ValueError, OverflowError, TypeError, IndexError, OSError):
        if date := parsedate_tz(headers.get("retry-after", "")):
            return _clamped(mktime_tz(date) - time.time())
    return None


def _clamped(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)
