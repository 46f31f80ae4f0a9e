"""What goes wrong between client and server, as the contract's errors."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import mktime_tz, parsedate_tz
from json import JSONDecodeError

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

# What waiting does not cure.
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
# The same by servers without codes: `transformers serve`, pydantic's strict models.
_UNSUPPORTED_TEXTS = ("Unexpected fields", "Extra inputs are not permitted")
# `transformers serve` (5.23.0) answers 400, not 404, for a model that it was not started with.
_NO_MODEL_TEXT = "Server is pinned to"


@contextmanager
def explained(url: str, timeout: float) -> Iterator[None]:
    """Turn what the SDK raises, talking to this URL under this timeout, into the contract's errors.

    A status error is raised without its cause, which says nothing more and may show a key that the
    server repeats: the port masks the reason, nobody masks the cause.
    """
    try:
        yield
    except openai.APIStatusError as error:
        raise _of_status(error, url) from None
    except openai.APITimeoutError as error:
        kind = type(error.__cause__).__name__
        raise AdapterTimeout(
            f"{url} gave no sign of life in time ({kind}, after at most {timeout:g} s); a server "
            "that needs longer needs a larger option `timeout`"
        ) from error
    except openai.APIConnectionError as error:
        raise Unavailable(f"cannot reach {url}, or it hung up: {error.__cause__}") from error
    except openai.APIError as error:  # in the middle of a stream
        raise Unavailable(f"{url} broke off: {_text(error.body) or error}") from error
    except (JSONDecodeError, UnicodeDecodeError) as error:  # an event that is not JSON
        raise Unavailable(f"{url} sent what cannot be read: {error}") from error


def _of_status(error: openai.APIStatusError, url: str) -> AdapterError:
    status = error.status_code
    text = _text(error.body) or error.response.reason_phrase
    reason = f"{url} answered {status}: {text}"
    details = {"status": status, "code": error.code}
    if status in (401, 403):
        return Unauthorized(f"{reason}; is `api_key` right?", details=details)
    if status == 404:
        return NotFound(
            f"{reason}; is the model served, and does `base_url` end as it should, mostly in /v1?",
            details=details,
        )
    if status in (402, 429):
        spent = status == 402 or bool({error.code, error.type} & _QUOTA)
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
    return f"{body or '':.500}" if isinstance(body, str | None) else f"{body!r:.500}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3): a number or a date."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        date = parsedate_tz(value)
        if date is None:
            return None
        seconds = mktime_tz(date) - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None
