"""Failures of client and server as errors of the contract."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

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
"""Limit of `RateLimited.retry_after` in seconds: `retry` waits that long."""

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of failures that waiting does not cure."""
_UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
_UNSUPPORTED_TEXTS = ("Unexpected fields", "Extra inputs are not permitted")
"""The same from servers without codes: `transformers serve`, pydantic's strict models."""
_NO_MODEL_TEXT = "Server is pinned to"
"""`transformers serve` (5.23.0) answers 400, not 404, for a model that it was not started with."""

ERRORS = (openai.APIError, httpx2.RequestError, UnicodeDecodeError)
"""The exceptions of a request, through the SDK or below it."""


def translated(error: Exception, url: str, timeout: float) -> AdapterError:
    """Return the contract's error for one of `ERRORS`, of this URL under this timeout.

    Raise it outside of the `except` block, so that it has neither a cause nor a context: they add
    nothing, and hold the whole answer and the request, including the key.
    """
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, url)
    if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException):
        return AdapterTimeout(
            f"{url} did not answer in time ({type(cause).__name__}, after at most "
            f"{timeout:g} s); a server that needs longer needs a larger option `timeout`"
        )
    if isinstance(error, httpx2.SSEError):
        return AdapterError(
            f"{url}: {error} If such events are right, set the option `max_event_bytes`"
        )
    if isinstance(error, UnicodeDecodeError):
        return Unavailable(f"{url} sent what cannot be read: {error}")
    if isinstance(cause, httpx2.ProtocolError):
        return Unavailable(f"{url} hung up, or sent what is not HTTP: {cut(str(cause))}")
    return Unavailable(f"cannot reach {url}, or it hung up: {cut(str(cause))}")


def unreadable(url: str, text: str | bytes, error: ValueError | RecursionError) -> AdapterError:
    """Return the error for JSON that is malformed, nested too deeply, or has too long a number."""
    if isinstance(error, json.JSONDecodeError):  # usually cut off
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
            f"{shown(error.response.headers.get('location', ''))}, which is not followed: the key "
            "and prompts go only to `base_url`; set it to that address if it is right",
            details=details,
        )
    if status in (401, 403):
        return Unauthorized(f"{reason}; is `api_key` right?", details=details)
    if status == 404:
        return NotFound(
            f"{reason}; is the model served, and does `base_url` end as it should, usually in /v1?",
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
    """Return the text of an error's body: {"message": ...}, {"detail": ...} or plain text."""
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body
    return cut(body or "") if isinstance(body, str | None) else shown(body)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, from 0 to `LONGEST_RETRY_AFTER`.

    OpenAI and Azure send `retry-after-ms`, which overrides `Retry-After`.
    """
    try:
        milliseconds = float(headers.get("retry-after-ms", "nan"))
    except ValueError:
        milliseconds = math.nan
    if not math.isnan(milliseconds):
        return min(max(0.0, milliseconds / 1000), LONGEST_RETRY_AFTER)
    seconds = RateLimited.retry_after_of(headers)
    return None if seconds is None else min(seconds, LONGEST_RETRY_AFTER)
